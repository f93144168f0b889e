-- Replace the reserved amounts by the true amounts.
-- ARGV, after those of counters.lua: a token of this call, the commits as JSON:
-- [[reservation, [[counter, kind, amount], …]], …].

-- The gateway repeats a call if it loses the connection before the answer. The repetition must have no effect.
if not redis.call('SET', prefix .. 'committed:' .. ARGV[3], 1, 'NX', 'EX', 60) then
    return
end
for _, ended in ipairs(cjson.decode(ARGV[4])) do
    local reservation, requests = unpack(ended)
    local packed = redis.call('HGET', leases, reservation)
    local held = packed and cmsgpack.unpack(packed) or {}
    local true_amounts, known = {}, {}
    for _, request in ipairs(requests) do
        true_amounts[request[1]] = request[3]
    end
    commit(held, true_amounts)
    for _, request in ipairs(held) do
        known[request[1]] = true
    end
    load(requests)
    for _, request in ipairs(requests) do
        if not known[request[1]] then
            counters[request[1]]:add(request[3])
        end
    end
    if packed then
        redis.call('HDEL', leases, reservation)
        redis.call('ZREM', ends, reservation)
    end
end
store()
