-- Read without claiming.
-- ARGV, after those of counters.lua: the claims as JSON, as for reserve.lua. Answer: the time, then each reading.
local claims = cjson.decode(ARGV[3])
local answer = { string.format('%.6f', now) }
load(claims)
for _, claim in ipairs(claims) do
    for _, number in ipairs(read(claim)) do
        answer[#answer + 1] = number
    end
end
return answer
