#!lua flags=no-writes
--[[ counts: how many runs each job has in each status.
  KEYS[1] prefix of the namespace's keys   ARGV[1] escaped job ("": all)
  Returns {job, scheduled, running, succeeded, failed, cancelled} for each. ]]
local P = KEYS[1]
local found = {}
for _, job in ipairs(ARGV[1] ~= "" and {ARGV[1]} or redis.call("SMEMBERS", P .. "jobs")) do
  local row = {job}
  for i, status in ipairs({"scheduled", "running", "succeeded", "failed", "cancelled"}) do
    row[i + 1] = redis.call("ZCARD", P .. "l:" .. job .. ":" .. status)
  end
  found[#found + 1] = row
end
return found
