-- Reserve the amounts of all requests, or nothing.
-- ARGV, after those of counters.lua: the reservation, its lease in seconds, the requests as JSON:
-- [[counter, kind, amount, limit or false, own or false, at_least or false], …].
-- Returns ADMITTED or REFUSED and the readings; or UNINITIALISED and the names of the budgets to initialise.
local PATIENCE = 5
local reservation, lease, requests = ARGV[3], tonumber(ARGV[4]), cjson.decode(ARGV[5])

-- The gateway repeats a call if it loses the connection before the answer. So replace an earlier reservation.
local before = redis.call('HGET', leases, reservation)
if before then
    commit(cmsgpack.unpack(before), {})
    redis.call('HDEL', leases, reservation)
    redis.call('ZREM', ends, reservation)
    store()
    counters = {}
end

load(requests)
local uninitialised = uninitialised_of(requests)
if uninitialised then
    return uninitialised
end

-- Store that a key shares a window, and until when. Keys share it that asked within the last minute, or that wait.
local function count_asker(request, ends_at)
    local name = prefix .. 'askers:' .. request[1]
    local known = redis.call('ZSCORE', name, request[5])
    if not known or tonumber(known) < ends_at then
        redis.call('ZADD', name, ends_at, request[5])
        redis.call('ZREMRANGEBYSCORE', name, '-inf', second)
        redis.call('EXPIRE', name, 2 * (WINDOW + 1))
    end
end

-- A key that has used less than its equal share goes first. If its request does not fit, the amount is kept for it, and
-- the other keys do not get it.
local function judge(request, reading, fits_elsewhere)
    local waiting = prefix .. 'waiting:' .. request[1]
    local kept, kept_until = 0, 0
    local entries = redis.call('HGETALL', waiting)
    for position = 1, #entries, 2 do
        local amount, ends_at = unpack(cmsgpack.unpack(entries[position + 1]))
        if ends_at <= second then
            redis.call('HDEL', waiting, entries[position])
        elseif entries[position] ~= request[5] then
            kept, kept_until = kept + amount, math.max(kept_until, ends_at)
        end
    end
    if reading[3] == 1 and kept_until == 0 then
        return -- the usual case
    end
    local shared, amount, limit = counters[request[1]], request[3], request[4]
    local sharing = redis.call('ZCOUNT', prefix .. 'askers:' .. request[1], '(' .. second, '+inf')
    local below = counters[request[5]].used * sharing < limit
    if reading[3] == 0 then
        if below and fits_elsewhere then
            local ends_at = math.max(reading[4], second) + PATIENCE
            redis.call('HSET', waiting, request[5], cmsgpack.pack({ amount, ends_at }))
            redis.call('EXPIRE', waiting, 2 * (WINDOW + 1))
            count_asker(request, ends_at)
        end
        return
    end
    local surplus = shared.used + amount + kept - limit
    if not below and surplus > 0 then
        reading[3], reading[4] = 0, math.min(shared:leaves_at(surplus), kept_until)
    end
end

local readings, sharing, fits_elsewhere = {}, {}, true
for position, request in ipairs(requests) do
    readings[position] = read(request)
    if request[4] and request[5] then
        sharing[#sharing + 1] = position
    else
        fits_elsewhere = fits_elsewhere and readings[position][3] == 1
    end
end
for _, position in ipairs(sharing) do
    count_asker(requests[position], second + WINDOW + 1)
    judge(requests[position], readings[position], fits_elsewhere)
end

local decision = answer(readings)
if decision[1] == REFUSED or #requests == 0 then
    return decision
end

local held = {}
for position, request in ipairs(requests) do
    local name, kind, amount, limit, _, at_least = unpack(request)
    if at_least and limit then
        amount = math.min(amount, limit - counters[name].used)
    end
    held[position] = { name, kind, amount, counters[name]:reserve(amount) }
end
for _, position in ipairs(sharing) do
    redis.call('HDEL', prefix .. 'waiting:' .. requests[position][1], requests[position][5])
end
redis.call('HSET', leases, reservation, cmsgpack.pack(held))
redis.call('ZADD', ends, string.format('%.6f', now + lease), reservation)
-- Redis deletes them a day after the last lease, if no script has released them.
redis.call('EXPIRE', leases, math.ceil(lease) + DAY)
redis.call('EXPIRE', ends, math.ceil(lease) + DAY)
store()
return decision
