-- Read counters without a reservation.
-- ARGV, after those of counters.lua: the requests as JSON, as for reserve.lua. Returns the same as reserve.lua.
local requests = cjson.decode(ARGV[3])
load(requests)
local uninitialised = uninitialised_of(requests)
if uninitialised then
    return uninitialised
end
local readings = {}
for position, request in ipairs(requests) do
    readings[position] = read(request)
end
return answer(readings)
