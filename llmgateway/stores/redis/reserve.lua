-- Claim all, or nothing.
-- ARGV, after those of counters.lua: the reservation, seconds of its lease, the claims as JSON:
-- [[counter, kind, amount, limit or false, own or false], …].
-- Answer: whether that is CLAIMED, REFUSED or UNKNOWN, then the readings, or each unknown total.
local PATIENCE = 5
local reservation, lease, claims = ARGV[3], tonumber(ARGV[4]), cjson.decode(ARGV[5])

-- A driver that lost the connection before the answer asks again: that is the same reservation.
local before = redis.call('HGET', leases, reservation)
if before then
    settle(cmsgpack.unpack(before), {})
    redis.call('HDEL', leases, reservation)
    redis.call('ZREM', ends, reservation)
    store()
    tallies = {}
end

load(claims)
local unknown = unknown_of(claims)
if unknown then
    return unknown
end

-- Those who share a window: who asked within the last minute or waits, by when that ends.
local function count_asker(claim, ends_at)
    local name = prefix .. 'askers:' .. claim[1]
    local known = redis.call('ZSCORE', name, claim[5])
    if not known or tonumber(known) < ends_at then
        redis.call('ZADD', name, ends_at, claim[5])
        redis.call('ZREMRANGEBYSCORE', name, '-inf', second)
        redis.call('EXPIRE', name, 2 * (WINDOW + 1))
    end
end

-- Who has used less than an equal share is below it. What one of those wanted and did not get is
-- kept for it: those who are not below do not get it.
local function judge(claim, reading, fits_elsewhere)
    local waiting = prefix .. 'waiting:' .. claim[1]
    local kept, kept_until = 0, 0
    local entries = redis.call('HGETALL', waiting)
    for position = 1, #entries, 2 do
        local amount, ends_at = unpack(cmsgpack.unpack(entries[position + 1]))
        if ends_at <= second then
            redis.call('HDEL', waiting, entries[position])
        elseif entries[position] ~= claim[5] then
            kept, kept_until = kept + amount, math.max(kept_until, ends_at)
        end
    end
    if reading[3] == 1 and kept_until == 0 then
        return -- nearly always
    end
    local shared, amount, limit = tallies[claim[1]], claim[3], claim[4]
    local sharing = redis.call('ZCOUNT', prefix .. 'askers:' .. claim[1], '(' .. second, '+inf')
    local below = tallies[claim[5]].used * sharing < limit
    if reading[3] == 0 then
        if below and fits_elsewhere then
            local ends_at = math.max(reading[4], second) + PATIENCE
            redis.call('HSET', waiting, claim[5], cmsgpack.pack({ amount, ends_at }))
            redis.call('EXPIRE', waiting, 2 * (WINDOW + 1))
            count_asker(claim, ends_at)
        end
        return
    end
    local surplus = shared.used + amount + kept - limit
    if not below and surplus > 0 then
        reading[3], reading[4] = 0, math.min(shared:leaves_at(surplus), kept_until)
    end
end

local readings, sharing, fits_elsewhere = {}, {}, true
for position, claim in ipairs(claims) do
    readings[position] = read(claim)
    if claim[4] and claim[5] then
        sharing[#sharing + 1] = position
    else
        fits_elsewhere = fits_elsewhere and readings[position][3] == 1
    end
end
for _, position in ipairs(sharing) do
    count_asker(claims[position], second + WINDOW + 1)
    judge(claims[position], readings[position], fits_elsewhere)
end

local decision = answer(readings)
if decision[1] == REFUSED or #claims == 0 then
    return decision
end

local held = {}
for position, claim in ipairs(claims) do
    held[position] = { claim[1], claim[2], claim[3], tallies[claim[1]]:claim(claim[3]) }
end
for _, position in ipairs(sharing) do
    redis.call('HDEL', prefix .. 'waiting:' .. claims[position][1], claims[position][5])
end
redis.call('HSET', leases, reservation, cmsgpack.pack(held))
redis.call('ZADD', ends, string.format('%.6f', now + lease), reservation)
-- Should nobody come any more, who would give them back, they are gone some time after the last of them.
redis.call('EXPIRE', leases, math.ceil(lease) + DAY)
redis.call('EXPIRE', ends, math.ceil(lease) + DAY)
store()
return decision
