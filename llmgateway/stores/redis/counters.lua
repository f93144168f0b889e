-- What the scripts of the counters have in common; each of them begins with this.
-- KEYS: the leases, and when they end. ARGV: what every name begins with, the time (empty: Redis' own).
--
-- A counter is a list of whole numbers, which is read and written as one value. Of a window:
-- second, amount, second, amount, …, oldest first. Of a gauge: what is held. Of a budget: what was
-- spent, what is held, the epoch, when the period ends (0: never); nothing while that is unknown.
-- The mark that is kept with a reserved amount is its second in a window, and the epoch of a budget. A budget
-- gets another epoch whenever it is initialised: it does not hold what was reserved before. The epoch is the
-- second in which that was, and 20 random bits.
--
-- Names are made here and are not all among KEYS: what an expired lease held is not known
-- before. On a cluster they are in the same slot all the same, as all of them share a hash tag.
local WINDOW, DAY, IDLE_BUDGET = 60, 24 * 3600, 40 * 24 * 3600
local TRUSTED, TRUSTED_AT_MOST = 600, 3600
local RELEASED_AT_ONCE = 50
local ADMITTED, REFUSED, UNKNOWN = 1, 0, -1
local leases, ends, prefix, now = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end
local second = math.floor(now)

-- Whole numbers beyond 10^14 would get an exponent, and lose digits, on their own way into a text.
local function text(number)
    return string.format('%.0f', number)
end

local Window = {}
Window.__index = Window

function Window.new(numbers)
    local used, count = 0, #numbers
    -- Those from further ahead than a window is long were reserved before the clock was put back.
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
        -- What was reserved has left the window. What the request used beyond it would never be counted otherwise.
        self:add(math.max(0, amount - reserved))
    end
end

function Window:add(amount)
    self:change(second, amount)
end

-- The second in which as much as surplus has left, or all there is.
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

-- Renewing a lease does not touch the gauges that it holds.
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

-- Whether it was initialised, and not too long ago: a Redis that was restarted from an old snapshot, or a
-- process that was killed before it committed, has made it wrong without a trace.
function Budget:is_known()
    if not self.numbers[1] then
        return false
    end
    -- One from far ahead was initialised before the clock was put back.
    local age = math.abs(second - math.floor(self.numbers[3] / 2 ^ 20))
    return age <= (self.held == 0 and TRUSTED or TRUSTED_AT_MOST)
end

-- A request that begins within the period may end after it, and is then added.
function Budget:ttl()
    local ends_at = self.numbers[4]
    return ends_at == 0 and IDLE_BUDGET or math.max(ends_at - second, 0) + DAY
end

local KINDS = { window = Window, gauge = Gauge, budget = Budget }
local counters = {}

local function name_of(name)
    return prefix .. 'count:' .. name
end

-- Read the counters of these requests, each of which begins with a counter's name and its kind.
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

-- Replace what one reservation held by the true amounts.
local function commit(held, true_amounts)
    load(held)
    for _, request in ipairs(held) do
        local name, _, reserved, mark = unpack(request)
        counters[name]:commit(reserved, mark, true_amounts[name] or 0)
    end
end

-- Release what expired leases hold of gauges and budgets; windows forget by themselves.
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

-- One counter for the answer: used, held, whether the request fits, when it will, when nothing is left.
local function read(request)
    local counter, amount, limit = counters[request[1]], request[3], request[4]
    local surplus = limit and counter.used + amount - limit or 0
    local fits_at = surplus > 0 and counter.leaves_at and counter:leaves_at(surplus) or 0
    local empties_at = counter.empties_at and counter:empties_at() or 0
    return { counter.used, counter.held, surplus <= 0 and 1 or 0, fits_at, empties_at }
end

-- The answer to requests with budgets that were not initialised, or not lately; nil if there are none.
local function unknown_of(requests)
    local unknown = { UNKNOWN }
    for _, request in ipairs(requests) do
        if request[2] == 'budget' and not counters[request[1]]:is_known() then
            unknown[#unknown + 1] = request[1]
        end
    end
    return #unknown > 1 and unknown or nil
end

-- A whole number of 64 bits for struct, whose own ends at 32 where the server has no more.
local function halves(number)
    return number % 2 ^ 32, math.floor(number / 2 ^ 32)
end

-- The answer to requests that were read: whether all of them fit, and all readings in one text, each of them two whole
-- numbers of 64 bits, a byte and the seconds from now as two doubles. The gateway reads that faster than a list
-- of numbers.
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
