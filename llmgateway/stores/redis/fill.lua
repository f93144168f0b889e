-- Put a key that was read from the durable store into the cache, unless any key has changed
-- since the reader looked: it may have read the state before that change.
-- KEYS: entry, guard. ARGV: the guard as the reader saw it, the entry, seconds to keep it.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
