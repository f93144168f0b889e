-- Say what was used of a budget, if nobody has lately.
-- ARGV, after those of counters.lua: its name, what was used, 20 random bits, when the period ends or 0.
local name, used, random, ends_at = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
load({ { name, 'budget' } })
if not counters[name]:is_known() then
    counters[name] = Budget.new({ used, 0, second * 2 ^ 20 + random, ends_at })
    store()
end
