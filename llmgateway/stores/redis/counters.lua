-- What the scripts of the counters have in common; each of them begins with this.
-- KEYS: the leases, and when they end. ARGV: what every name begins with, the time (empty: Redis' own).
--
-- A counter is a list of whole numbers, which is read and written as one value. Of a window:
-- second, amount, second, amount, …, oldest first. Of a level: what is held. Of a total: what was
-- spent, what is held, the epoch, when the period ends (0: never); nothing while that is unknown.
-- The mark that is kept with a claim is its second in a window, and the epoch of a total. The epoch is
-- another one whenever a total was told anew: it does not hold what was claimed before. It begins with
-- the second in which that was, and 20 random bits follow.
--
-- Names are made here and are not all among KEYS: what a lease that ran out held is not known
-- before. On a cluster they are at the same place all the same, as all of them share a hash tag.
local WINDOW, DAY, IDLE_TOTAL = 60, 24 * 3600, 40 * 24 * 3600
local RETOLD, RETOLD_AT_LAST = 600, 3600
local RETURNED_AT_ONCE = 50
local CLAIMED, REFUSED, UNKNOWN = 1, 0, -1
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
    -- Those from further ahead than a window is long were claimed before the clock was put back.
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

function Window:claim(amount)
    self:change(second, amount)
    return second
end

function Window:settle(claimed, mark, amount)
    if mark >= second - WINDOW then
        self:change(mark, amount - claimed)
    else
        -- What was claimed has left. An answer that takes longer than a minute used the rest all the same,
        -- and would never be counted.
        self:add(math.max(0, amount - claimed))
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

local Level = {}
Level.__index = Level

function Level.new(numbers)
    local held = numbers[1] or 0
    return setmetatable({ numbers = { held }, used = held, held = held }, Level)
end

function Level:claim(amount)
    self.numbers[1] = self.numbers[1] + amount
    return 0
end

function Level:settle(claimed)
    self.numbers[1] = math.max(0, self.numbers[1] - claimed)
end

function Level:add()
end

-- Leases are renewed without a word to the levels that they hold.
function Level:ttl()
    return DAY
end

local Total = {}
Total.__index = Total

function Total.new(numbers)
    local held = numbers[2] or 0
    return setmetatable({ numbers = numbers, used = (numbers[1] or 0) + held, held = held }, Total)
end

function Total:claim(amount)
    self.numbers[2] = self.numbers[2] + amount
    return self.numbers[3]
end

function Total:settle(claimed, mark, amount)
    if self.numbers[3] and (self.numbers[3] - mark) % 2 ^ 20 == 0 then
        self.numbers[2] = self.numbers[2] - claimed
    end
    self:add(amount)
end

function Total:add(amount)
    if self.numbers[1] then
        self.numbers[1] = self.numbers[1] + amount
    end
end

-- Whether somebody has told what was spent, not too long ago to be believed: a Redis that was restarted from
-- an old snapshot, or a process that was killed before it settled, has made it wrong without a trace.
function Total:is_known()
    if not self.numbers[1] then
        return false
    end
    -- One from far ahead was told before the clock was put back.
    local age = math.abs(second - math.floor(self.numbers[3] / 2 ^ 20))
    return age <= (self.held == 0 and RETOLD or RETOLD_AT_LAST)
end

-- A request that began within the period may end after it, and is then added.
function Total:ttl()
    local ends_at = self.numbers[4]
    return ends_at == 0 and IDLE_TOTAL or math.max(ends_at - second, 0) + DAY
end

local KINDS = { window = Window, level = Level, total = Total }
local tallies = {}

local function name_of(counter)
    return prefix .. 'count:' .. counter
end

-- Read the counters of these claims, each of which begins with a counter and its kind.
local function load(claims)
    local names, wanted = {}, {}
    for _, claim in ipairs(claims) do
        if not tallies[claim[1]] and not names[claim[1]] then
            names[claim[1]] = true
            wanted[#wanted + 1] = claim
            names[#wanted] = name_of(claim[1])
        end
    end
    if #wanted == 0 then
        return
    end
    local found = redis.call('MGET', unpack(names))
    for position, claim in ipairs(wanted) do
        local numbers = found[position] and cmsgpack.unpack(found[position]) or {}
        tallies[claim[1]] = KINDS[claim[2]].new(numbers)
    end
end

local function store()
    for counter, tally in pairs(tallies) do
        if #tally.numbers > 0 then
            redis.call('SET', name_of(counter), cmsgpack.pack(tally.numbers), 'EX', text(tally:ttl()))
        else
            redis.call('DEL', name_of(counter))
        end
    end
end

-- What one reservation held comes back; true_amounts are those of its end.
local function settle(held, true_amounts)
    load(held)
    for _, claim in ipairs(held) do
        local counter, _, amount, mark = unpack(claim)
        tallies[counter]:settle(amount, mark, true_amounts[counter] or 0)
    end
end

-- Let levels and totals have again what is held by leases that ran out; windows forget by themselves.
local function give_back()
    local expired = redis.call(
        'ZRANGEBYSCORE', ends, '-inf', string.format('%.6f', now), 'LIMIT', 0, RETURNED_AT_ONCE
    )
    if #expired == 0 then
        return
    end
    for _, packed in ipairs(redis.call('HMGET', leases, unpack(expired))) do
        local returning = {}
        for _, claim in ipairs(packed and cmsgpack.unpack(packed) or {}) do
            if claim[2] ~= 'window' then
                returning[#returning + 1] = claim
            end
        end
        settle(returning, {})
    end
    redis.call('HDEL', leases, unpack(expired))
    redis.call('ZREM', ends, unpack(expired))
    store()
    tallies = {}
end

-- One counter for the answer: used, held, whether the claim fits, when it will, when nothing is left.
local function read(claim)
    local tally, amount, limit = tallies[claim[1]], claim[3], claim[4]
    local surplus = limit and tally.used + amount - limit or 0
    local fits_at = surplus > 0 and tally.leaves_at and tally:leaves_at(surplus) or 0
    return { tally.used, tally.held, surplus <= 0 and 1 or 0, fits_at, tally.empties_at and tally:empties_at() or 0 }
end

-- The answer to claims with totals that nobody has told, or not lately, what was used; nil if there are none.
local function unknown_of(claims)
    local unknown = { UNKNOWN }
    for _, claim in ipairs(claims) do
        if claim[2] == 'total' and not tallies[claim[1]]:is_known() then
            unknown[#unknown + 1] = claim[1]
        end
    end
    return #unknown > 1 and unknown or nil
end

-- A whole number of 64 bits for struct, whose own ends at 32 where the server has no more.
local function halves(number)
    return number % 2 ^ 32, math.floor(number / 2 ^ 32)
end

-- The answer to claims that were read: whether all of them fit, and all readings in one text, each of them two whole
-- numbers of 64 bits, a byte and the seconds from now as two doubles. What is made of that costs the gateway less
-- than a list of numbers.
local function answer(readings)
    local verdict, packed = CLAIMED, {}
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

give_back()
