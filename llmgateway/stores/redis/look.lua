-- Read without claiming.
-- ARGV, after those of counters.lua: the claims as JSON, as for reserve.lua. Answer: as that of reserve.lua.
local claims = cjson.decode(ARGV[3])
load(claims)
local unknown = unknown_of(claims)
if unknown then
    return unknown
end
local readings = {}
for position, claim in ipairs(claims) do
    readings[position] = read(claim)
end
return answer(readings)
