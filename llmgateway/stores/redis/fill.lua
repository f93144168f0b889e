-- Store an entry of a key that was read from the durable store, unless any key has changed since then: the entry may be
-- older than that change.
-- KEYS: entry, guard. ARGV: the guard before the durable store was read, the entry, its TTL in seconds.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
