-- Answer with both tokens; one that is missing is made, by one of several processes for all.
-- KEYS: generation, guard. ARGV: a new token for each, seconds to keep each.
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'NX', 'EX', ARGV[4])
return redis.call('MGET', KEYS[1], KEYS[2])
