#!lua flags=allow-oom
--[[ checkout: runs whose lease carried the newest token have ended their attempt.
  KEYS[1] prefix of the namespace's keys
  ARGV    eight per run: run id, token, request of the lease, ending, result in JSON ("": none), error in JSON
          ("": none), when it is due again ("": it has ended; "+<ms>": so long after now; "<ms>": then), request
  Returns for each 1 recorded (now, or before by this very request), 0 stale: nothing changed.
  Allowed when memory is short, since it lets work end.   Guarantees G4, G6, G7. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/soonest.lua
--@include lib/facts.lua
--@include lib/history.lua
--@include lib/lists.lua
-- What a check-out does not look at, it does not ask for.
FACTS = {
  "status", "token", "request", "sequence", "origin", "attempt", "claim", "priority", "run_at", "created", "failures",
  "attempt_request", "holder",
}

local function record(id, token, proof, ending, result, failure, due, request)
  local f = facts(id)
  if not f then
    return 0
  elseif f.status ~= "running" or f.token ~= token or f.request ~= proof then
    return ended_by(id, f, token, request) and 1 or 0
  end
  leave(id, f)
  local key = P .. "r:" .. id
  if due ~= "" then
    local delay = string.match(due, "^+(.*)")
    f.status, f.run_at = "scheduled", delay and string.format("%d", now + delay) or due
    redis.call(
      "HSET", key, "status", f.status, "run_at", f.run_at, "attempt_ended", moment, "ending", ending,
      "checkout", request, "error", failure
    )
  else
    f.status, f.ended = ending, moment
    redis.call(
      "HSET", key, "status", f.status, "ended", moment, "result", result, "attempt_ended", moment, "ending", ending,
      "checkout", request, "error", failure
    )
  end
  redis.call("HDEL", key, "lease_ms", "until", "claim", "cancel_requested")
  if ending == "failed" or ending == "retry" then
    redis.call("HSET", key, "failures", tonumber(f.failures or 0) + 1)
  end
  enter(id, f)
  note(job_of(id), "0")
  if due == "" then
    tell("r", id, "0")
  end
  return 1
end

together()
local answers = {}
for i = 1, #ARGV, 8 do
  answers[#answers + 1] = record(unpack(ARGV, i, i + 7))
end
settle()
tell_soonest()
return answers
