-- Forget entries, and refuse those that were read before.
-- KEYS: guard, each entry. ARGV: a new guard, seconds to keep it.
local AT_ONCE = 1000 -- Lua's stack holds no more than some thousands
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
for first = 2, #KEYS, AT_ONCE do
    -- Not DEL, whose time grows with what it frees: thousands of keys are revoked at once.
    redis.call('UNLINK', unpack(KEYS, first, math.min(first + AT_ONCE - 1, #KEYS)))
end
