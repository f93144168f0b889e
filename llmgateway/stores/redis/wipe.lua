-- Delete entries, and change the guard, so that fill.lua rejects what was read from the durable store before.
-- KEYS: guard, each entry. ARGV: a new guard, its TTL in seconds.
local AT_ONCE = 1000 -- Lua's stack has room for a few thousand values
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
for first = 2, #KEYS, AT_ONCE do
    -- Not DEL, which frees the memory at once and so takes longer. An admin may revoke thousands of keys.
    redis.call('UNLINK', unpack(KEYS, first, math.min(first + AT_ONCE - 1, #KEYS)))
end
