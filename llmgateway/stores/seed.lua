-- Tell what was used of a total, if nobody has.
-- ARGV, after those of counters.lua: the counter, what was used, the epoch, when the period ends or 0.
local total = Total.new({ tonumber(ARGV[4]), 0, tonumber(ARGV[5]), tonumber(ARGV[6]) })
redis.call('SET', name_of(ARGV[3]), cmsgpack.pack(total.numbers), 'NX', 'EX', text(total:ttl()))
