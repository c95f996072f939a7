#!lua flags=no-writes
--[[ runs: a page of the runs that match, in order of submission.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] "up": oldest first; "down"   ARGV[2] sequence behind which to go on   ARGV[3] at most so many
  ARGV[4] "1": only lapsed ones        ARGV[5] escaped job ("": any)            ARGV[6] escaped key ("": any)
  ARGV[7] "1": only this stamp         ARGV[8] escaped stamp                    ARGV[9...] statuses
  Returns {sequence to go on behind (false: that is all), then fields of each run, its id before them}.
  Looks at a bounded number of runs, so that a rare match does not stop the server. ]]
--@include lib/clock.lua
--@include lib/facts.lua
FACTS = {"status", "until", "lease_ms", "created"}
local up, after, limit = ARGV[1] == "up", ARGV[2], tonumber(ARGV[3])
local LOOKS = 10000

local function matches(id)
  local _, key, stamp = string.match(id, "^([^:]*):([^:]*):([^:]*)$")
  if (ARGV[6] ~= "" and key ~= ARGV[6]) or (ARGV[7] == "1" and stamp ~= ARGV[8]) then
    return false
  end
  if ARGV[4] == "1" then
    return lapsed(facts(id))
  end
  return true
end

local function page(list, from, most)
  if up then
    return redis.call("ZRANGEBYSCORE", list, "(" .. from, "+inf", "WITHSCORES", "LIMIT", 0, most)
  end
  return redis.call("ZREVRANGEBYSCORE", list, "(" .. from, "-inf", "WITHSCORES", "LIMIT", 0, most)
end

local lists = {}
for _, job in ipairs(ARGV[5] ~= "" and {ARGV[5]} or redis.call("SMEMBERS", P .. "jobs")) do
  for i = 9, #ARGV do
    lists[#lists + 1] = P .. "l:" .. job .. ":" .. ARGV[i]
  end
end

-- Of each list, as many as might be needed; what lies behind the nearest end of a list that was cut is left out.
local found, frontier = {}, nil
local most = math.min(limit, math.ceil(LOOKS / math.max(1, #lists)))
for _, list in ipairs(lists) do
  local got = page(list, after, most)
  for i = 1, #got, 2 do
    if matches(got[i]) then
      found[#found + 1] = {id = got[i], sequence = tonumber(got[i + 1])}
    end
  end
  if #got == 2 * most then
    local last = tonumber(got[#got])
    if not frontier or (up and last < frontier) or (not up and last > frontier) then
      frontier = last
    end
  end
end
table.sort(found, function(a, b)
  if up then
    return a.sequence < b.sequence
  end
  return a.sequence > b.sequence
end)

local answer = {frontier and string.format("%.0f", frontier) or false}
for i = 1, math.min(limit, #found) do
  local beyond = frontier and ((up and found[i].sequence > frontier) or (not up and found[i].sequence < frontier))
  if beyond then
    break
  end
  local run = redis.call("HGETALL", P .. "r:" .. found[i].id)
  table.insert(run, 1, found[i].id)
  answer[#answer + 1] = run
end
return answer
