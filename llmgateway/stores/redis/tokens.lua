-- Return both tokens. A missing token is created; if several processes do so, all of them get the same one.
-- KEYS: generation, guard. ARGV: a new token for each of them, the TTL of each in seconds.
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'NX', 'EX', ARGV[4])
return redis.call('MGET', KEYS[1], KEYS[2])
