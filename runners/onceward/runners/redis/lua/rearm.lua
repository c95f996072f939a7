#!lua
--[[ rearm: ended runs are SCHEDULED again, due now, with failures and crashes forgiven.
  KEYS[1] prefix of the namespace's keys   ARGV two per run: run id, token that must be the newest
  Returns for each 1 (now, or before and nothing happened since); 0: nothing changed.   Guarantees G2, G7. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/facts.lua
--@include lib/lists.lua
local function rearm(id, token)
  local f = facts(id)
  if not f or (f.token or "0") ~= token or f.status == "running" then
    return 0
  elseif f.status == "scheduled" then
    return f.rearmed and 1 or 0
  end
  leave(id, f)
  f.status, f.run_at = "scheduled", moment
  redis.call("HSET", P .. "r:" .. id, "status", f.status, "run_at", moment, "rearmed", "1")
  redis.call("HDEL", P .. "r:" .. id, "ended", "failures", "crashes")
  enter(id, f)
  tell("j", job_of(id), "0")
  return 1
end

local answers = {}
for i = 1, #ARGV, 2 do
  answers[#answers + 1] = rearm(ARGV[i], ARGV[i + 1])
end
return answers
