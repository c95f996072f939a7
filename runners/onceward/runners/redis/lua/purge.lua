#!lua flags=allow-oom
--[[ purge: ended runs of one job that match are gone, those that ended first coming first.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped job        ARGV[2] age in ms      ARGV[3] letters of the statuses    ARGV[4] "1": only this stamp
  ARGV[5] escaped stamp      ARGV[6] keep the latest so many         ARGV[7] at most so many      ARGV[8] skip so many
  Returns {deleted, how many to skip in the next call (false: that is all)}.   Guarantees G14. ]]
--@include lib/clock.lua
local job, letters, stamp, limit = ARGV[1], ARGV[3], ARGV[5], tonumber(ARGV[7])
local LOOKS = 10000
local ended, skip = P .. "e:" .. job, tonumber(ARGV[8])
local spare = redis.call("ZCARD", ended) - tonumber(ARGV[6])
local most = math.min(LOOKS, spare - skip)
if most <= 0 then
  return {0, false}
end
local before = string.format("%.0f", now - ARGV[2])
local looked, deleted = 0, 0
for _, member in ipairs(redis.call("ZRANGEBYSCORE", ended, "-inf", before, "LIMIT", skip, most)) do
  if deleted == limit then
    break
  end
  looked = looked + 1
  local letter, id = string.sub(member, 17, 17), string.sub(member, 18)
  if string.find(letters, letter, 1, true) and (ARGV[4] ~= "1" or string.match(id, "[^:]*$") == stamp) then
    local status = ({s = "succeeded", f = "failed", c = "cancelled"})[letter]
    redis.call("ZREM", ended, member)
    redis.call("ZREM", P .. "l:" .. job .. ":" .. status, id)
    redis.call("DEL", P .. "r:" .. id)
    deleted = deleted + 1
  end
end
if deleted > 0 then
  local left = 0
  for _, status in ipairs({"scheduled", "running", "succeeded", "failed", "cancelled"}) do
    left = left + redis.call("ZCARD", P .. "l:" .. job .. ":" .. status)
  end
  if left == 0 then
    redis.call("SREM", P .. "jobs", job)
    redis.call("DEL", P .. "p:" .. job)
  end
end
return {deleted, looked == LOOKS and skip + looked - deleted}
