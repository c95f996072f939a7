#!lua flags=no-writes
--[[ next: the first moment behind one seen before at which something of interest comes due or lapses.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] the moment seen ("": now)   ARGV[2] number of jobs; they follow, and then escaped names of locks
  Returns {now, moment}; false instead of a moment: nothing waits. ]]
--@include lib/clock.lua
local seen = tonumber(ARGV[1]) or now
local first

local function consider(key)
  local found = redis.call("ZRANGEBYSCORE", key, string.format("(%.0f", seen), "(+inf", "WITHSCORES", "LIMIT", 0, 1)
  if found[2] and (not first or tonumber(found[2]) < first) then
    first = tonumber(found[2])
  end
end

local jobs = tonumber(ARGV[2])
for i = 3, 2 + jobs do
  consider(P .. "x:" .. ARGV[i])
  for _, priority in ipairs(redis.call("ZRANGE", P .. "p:" .. ARGV[i], 0, -1)) do
    consider(P .. "w:" .. ARGV[i] .. ":" .. priority)
  end
end
for i = 3 + jobs, #ARGV do
  local ends = tonumber(redis.call("ZSCORE", P .. "k", ARGV[i]) or nil)
  if ends and ends > seen and (not first or ends < first) then
    first = ends
  end
end
return {now, first or false}
