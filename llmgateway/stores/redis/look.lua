-- Read without reserving.
-- ARGV, after those of counters.lua: the requests as JSON, as for reserve.lua. Answer: as that of reserve.lua.
local requests = cjson.decode(ARGV[3])
load(requests)
local unknown = unknown_of(requests)
if unknown then
    return unknown
end
local readings = {}
for position, request in ipairs(requests) do
    readings[position] = read(request)
end
return answer(readings)
