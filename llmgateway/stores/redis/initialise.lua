-- Initialise a budget with what was used of it, unless it was initialised recently.
-- ARGV, after those of counters.lua: its name, the used amount, 20 random bits, the end of the period or 0.
local name, used, random, ends_at = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
load({ { name, 'budget' } })
if not counters[name]:is_initialised() then
    counters[name] = Budget.new({ used, 0, second * 2 ^ 20 + random, ends_at })
    store()
end
