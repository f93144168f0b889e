-- Treat an old initialisation of a budget as recent.
-- ARGV, after those of counters.lua: its name. Returns 1, or 0 if the budget is not initialised.
local name = ARGV[3]
load({ { name, 'budget' } })
local numbers = counters[name].numbers
if not numbers[1] then
    return 0
end
numbers[3] = second * 2 ^ 20 + numbers[3] % 2 ^ 20
store()
return 1
