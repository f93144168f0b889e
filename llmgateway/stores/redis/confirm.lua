-- Let a total that was told long ago be believed for longer.
-- ARGV, after those of counters.lua: the counter. Answer: 1, or 0 if nobody has told it.
local counter = ARGV[3]
load({ { counter, 'total' } })
local numbers = tallies[counter].numbers
if not numbers[1] then
    return 0
end
numbers[3] = second * 2 ^ 20 + numbers[3] % 2 ^ 20
store()
return 1
