-- The common part of the counter scripts. Each of them begins with this file.
-- KEYS: the leases, and their ends. ARGV: the prefix of all names, the time (empty: the clock of Redis).
--
-- A counter is a list of whole numbers, which is stored as one value:
-- - window: second, amount, second, amount, …, oldest first.
-- - gauge: the held amount.
-- - budget: the spent amount, the held amount, the epoch, the end of the period (0: never). The list is empty while
--   the budget is not initialised.
-- Each reserved amount is stored with a mark: its second in a window, or the epoch of a budget. A budget gets a new
-- epoch whenever it is initialised, and then does not hold earlier reservations. The epoch consists of the second of
-- the initialisation and of 20 random bits.
--
-- Not all names are in KEYS, because the counters of expired leases are not known before. On a cluster they are in the
-- same slot all the same, because all names share a hash tag.
local WINDOW, DAY, IDLE_BUDGET = 60, 24 * 3600, 40 * 24 * 3600
local TRUSTED, TRUSTED_AT_MOST = 600, 3600
local RELEASED_AT_ONCE = 50
local ADMITTED, REFUSED, UNINITIALISED = 1, 0, -1
local leases, ends, prefix, now = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end
local second = math.floor(now)

-- Lua's own conversion writes whole numbers above 10^14 with an exponent, and loses digits.
local function text(number)
    return string.format('%.0f', number)
end

local Window = {}
Window.__index = Window

function Window.new(numbers)
    local used, count = 0, #numbers
    -- Seconds more than a window in the future come from before the clock was set back.
    if count > 0 and (numbers[1] < second - WINDOW or numbers[count - 1] > second + WINDOW) then
        local current = {}
        for position = 1, count, 2 do
            if math.abs(second - numbers[position]) <= WINDOW then
                current[#current + 1] = numbers[position]
                current[#current + 1] = numbers[position + 1]
            end
        end
        numbers, count = current, #current
    end
    for position = 2, count, 2 do
        used = used + numbers[position]
    end
    return setmetatable({ numbers = numbers, used = used, held = 0 }, Window)
end

function Window:change(mark, difference)
    local numbers, position = self.numbers, #self.numbers + 1
    while position > 1 and numbers[position - 2] >= mark do
        position = position - 2
    end
    local before = numbers[position] == mark and numbers[position + 1] or nil
    local amount = math.max(0, (before or 0) + difference)
    self.used = self.used + amount - (before or 0)
    if amount == 0 then
        if before then
            table.remove(numbers, position + 1)
            table.remove(numbers, position)
        end
    elseif before then
        numbers[position + 1] = amount
    else
        table.insert(numbers, position, amount)
        table.insert(numbers, position, mark)
    end
end

function Window:reserve(amount)
    self:change(second, amount)
    return second
end

function Window:commit(reserved, mark, amount)
    if mark >= second - WINDOW then
        self:change(mark, amount - reserved)
    else
        -- The reserved amount has left the window. The amount beyond it has not been counted yet.
        self:add(math.max(0, amount - reserved))
    end
end

function Window:add(amount)
    self:change(second, amount)
end

-- Return the second in which surplus has left the window, or the whole content if that is less.
function Window:leaves_at(surplus)
    local leaves_at = 0
    for position = 1, #self.numbers, 2 do
        leaves_at = self.numbers[position] + WINDOW + 1
        surplus = surplus - self.numbers[position + 1]
        if surplus <= 0 then
            break
        end
    end
    return leaves_at
end

function Window:empties_at()
    return #self.numbers > 0 and self.numbers[#self.numbers - 1] + WINDOW + 1 or 0
end

function Window:ttl()
    return 2 * (WINDOW + 1)
end

local Gauge = {}
Gauge.__index = Gauge

function Gauge.new(numbers)
    local held = numbers[1] or 0
    return setmetatable({ numbers = { held }, used = held, held = held }, Gauge)
end

function Gauge:reserve(amount)
    self.numbers[1] = self.numbers[1] + amount
    return 0
end

function Gauge:commit(reserved)
    self.numbers[1] = math.max(0, self.numbers[1] - reserved)
end

function Gauge:add()
end

-- A long time, because renewing a lease does not change the gauges that it holds.
function Gauge:ttl()
    return DAY
end

local Budget = {}
Budget.__index = Budget

function Budget.new(numbers)
    local held = numbers[2] or 0
    return setmetatable({ numbers = numbers, used = (numbers[1] or 0) + held, held = held }, Budget)
end

function Budget:reserve(amount)
    self.numbers[2] = self.numbers[2] + amount
    return self.numbers[3]
end

function Budget:commit(reserved, mark, amount)
    if self.numbers[3] and (self.numbers[3] - mark) % 2 ^ 20 == 0 then
        self.numbers[2] = self.numbers[2] - reserved
    end
    self:add(amount)
end

function Budget:add(amount)
    if self.numbers[1] then
        self.numbers[1] = self.numbers[1] + amount
    end
end

-- Whether the budget was initialised, and not too long ago. A counter can be wrong without a sign of it: Redis was
-- restarted from an old snapshot, or a process was killed before it committed.
function Budget:is_initialised()
    if not self.numbers[1] then
        return false
    end
    -- An initialisation in the future happened before the clock was set back.
    local age = math.abs(second - math.floor(self.numbers[3] / 2 ^ 20))
    return age <= (self.held == 0 and TRUSTED or TRUSTED_AT_MOST)
end

-- A request that began in the period may end and be counted after it.
function Budget:ttl()
    local ends_at = self.numbers[4]
    return ends_at == 0 and IDLE_BUDGET or math.max(ends_at - second, 0) + DAY
end

local KINDS = { window = Window, gauge = Gauge, budget = Budget }
local counters = {}

local function name_of(name)
    return prefix .. 'count:' .. name
end

-- Load the counters of requests. Each request begins with the name and the kind of a counter.
local function load(requests)
    local names, wanted = {}, {}
    for _, request in ipairs(requests) do
        if not counters[request[1]] and not names[request[1]] then
            names[request[1]] = true
            wanted[#wanted + 1] = request
            names[#wanted] = name_of(request[1])
        end
    end
    if #wanted == 0 then
        return
    end
    local found = redis.call('MGET', unpack(names))
    for position, request in ipairs(wanted) do
        local numbers = found[position] and cmsgpack.unpack(found[position]) or {}
        counters[request[1]] = KINDS[request[2]].new(numbers)
    end
end

local function store()
    for name, counter in pairs(counters) do
        if #counter.numbers > 0 then
            redis.call('SET', name_of(name), cmsgpack.pack(counter.numbers), 'EX', text(counter:ttl()))
        else
            redis.call('DEL', name_of(name))
        end
    end
end

-- Replace the amounts that one reservation holds by the true amounts.
local function commit(held, true_amounts)
    load(held)
    for _, request in ipairs(held) do
        local name, _, reserved, mark = unpack(request)
        counters[name]:commit(reserved, mark, true_amounts[name] or 0)
    end
end

-- Give the amounts of expired leases back to gauges and budgets. Amounts in windows expire in any case.
local function release_expired()
    local expired = redis.call(
        'ZRANGEBYSCORE', ends, '-inf', string.format('%.6f', now), 'LIMIT', 0, RELEASED_AT_ONCE
    )
    if #expired == 0 then
        return
    end
    for _, packed in ipairs(redis.call('HMGET', leases, unpack(expired))) do
        local held = {}
        for _, request in ipairs(packed and cmsgpack.unpack(packed) or {}) do
            if request[2] ~= 'window' then
                held[#held + 1] = request
            end
        end
        commit(held, {})
    end
    redis.call('HDEL', leases, unpack(expired))
    redis.call('ZREM', ends, unpack(expired))
    store()
    counters = {}
end

-- Return the reading of one counter: the used and the held amount, whether the request fits, when it will fit, and when
-- the counter will be empty. Of a budget of which nothing is held, at_least is enough.
local function read(request)
    local name, kind, amount, limit, _, at_least = unpack(request)
    local counter = counters[name]
    local surplus = limit and counter.used + amount - limit or 0
    if surplus > 0 and kind == 'budget' and at_least and counter.held == 0 then
        surplus = counter.used + at_least - limit
    end
    local fits_at = surplus > 0 and counter.leaves_at and counter:leaves_at(surplus) or 0
    local empties_at = counter.empties_at and counter:empties_at() or 0
    return { counter.used, counter.held, surplus <= 0 and 1 or 0, fits_at, empties_at }
end

-- Return the answer for requests with budgets that must be initialised; nil if there are none.
local function uninitialised_of(requests)
    local names = { UNINITIALISED }
    for _, request in ipairs(requests) do
        if request[2] == 'budget' and not counters[request[1]]:is_initialised() then
            names[#names + 1] = request[1]
        end
    end
    return #names > 1 and names or nil
end

-- Split a whole number of 64 bits into two of 32 bits, because struct has no larger ones on 32-bit servers.
local function halves(number)
    return number % 2 ^ 32, math.floor(number / 2 ^ 32)
end

-- Return the answer for these readings: whether all requests fit, and all readings in one string. A reading is two
-- whole numbers of 64 bits, a byte, and two doubles with seconds from now. The gateway reads a string faster than a
-- list of numbers.
local function answer(readings)
    local verdict, packed = ADMITTED, {}
    for position, reading in ipairs(readings) do
        local used, used_high = halves(reading[1])
        local held, held_high = halves(reading[2])
        verdict = verdict * reading[3]
        packed[position] = struct.pack(
            '<I4i4I4i4Bdd', used, used_high, held, held_high, reading[3],
            math.max(0, reading[4] - now), math.max(0, reading[5] - now)
        )
    end
    return { verdict, table.concat(packed) }
end

release_expired()
