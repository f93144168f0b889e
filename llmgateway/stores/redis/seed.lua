-- Tell what was used of a total, if nobody has lately.
-- ARGV, after those of counters.lua: the counter, what was used, 20 random bits, when the period ends or 0.
local counter, used, random, ends_at = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
load({ { counter, 'total' } })
if not tallies[counter]:is_known() then
    tallies[counter] = Total.new({ used, 0, second * 2 ^ 20 + random, ends_at })
    store()
end
