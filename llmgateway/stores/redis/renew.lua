-- Extend the leases that still exist.
-- ARGV, after those of counters.lua: the lease in seconds, each reservation.
local lease = tonumber(ARGV[3])
for position = 4, #ARGV do
    redis.call('ZADD', ends, 'XX', string.format('%.6f', now + lease), ARGV[position])
end
redis.call('EXPIRE', leases, math.ceil(lease) + DAY)
redis.call('EXPIRE', ends, math.ceil(lease) + DAY)
