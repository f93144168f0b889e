-- Put the true amounts in place of the claimed ones.
-- ARGV, after those of counters.lua: a token of this call, the settlements as JSON:
-- [[reservation, [[counter, kind, amount], …]], …].

-- A driver that lost the connection before the answer calls again: once is enough.
if not redis.call('SET', prefix .. 'settled:' .. ARGV[3], 1, 'NX', 'EX', 60) then
    return
end
for _, settlement in ipairs(cjson.decode(ARGV[4])) do
    local reservation, claims = unpack(settlement)
    local packed = redis.call('HGET', leases, reservation)
    local held = packed and cmsgpack.unpack(packed) or {}
    local true_amounts, known = {}, {}
    for _, claim in ipairs(claims) do
        true_amounts[claim[1]] = claim[3]
    end
    settle(held, true_amounts)
    for _, claim in ipairs(held) do
        known[claim[1]] = true
    end
    load(claims)
    for _, claim in ipairs(claims) do
        if not known[claim[1]] then
            tallies[claim[1]]:add(claim[3])
        end
    end
    if packed then
        redis.call('HDEL', leases, reservation)
        redis.call('ZREM', ends, reservation)
    end
end
store()
