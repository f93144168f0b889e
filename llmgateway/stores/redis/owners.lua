-- Note whose stored responses, items and containers are. KEYS: each entry. ARGV: the TTL in seconds, each content.
for number, name in ipairs(KEYS) do
    redis.call('SET', name, ARGV[number + 1], 'EX', ARGV[1])
end
