-- Let a budget that was initialised long ago be used for longer.
-- ARGV, after those of counters.lua: its name. Answer: 1, or 0 if nobody has initialised it.
local name = ARGV[3]
load({ { name, 'budget' } })
local numbers = counters[name].numbers
if not numbers[1] then
    return 0
end
numbers[3] = second * 2 ^ 20 + numbers[3] % 2 ^ 20
store()
return 1
