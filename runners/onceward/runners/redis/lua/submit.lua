#!lua
--[[ submit: every run exists.
  KEYS[1] prefix of the namespace's keys
  ARGV    seven per run: run id, run_at in ms ("": now), delay in ms, priority, max_crashes ("": no limit),
          payload in JSON ("": none), request
  Returns for each 1 where this request made it, 0 where it was known already.
  Guarantees G1, G7, G13. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/soonest.lua
--@include lib/lists.lua
together()
local answers, jobs = {}, {}
for i = 1, #ARGV, 7 do
  local id, run_at, delay, priority, budget, payload, request = unpack(ARGV, i, i + 6)
  local key = P .. "r:" .. id
  local origin = redis.call("HGET", key, "origin")
  if not origin then
    local f = {status = "scheduled", sequence = string.format("%d", redis.call("INCR", P .. "n")), priority = priority}
    f.run_at = run_at ~= "" and run_at or string.format("%d", now + delay)
    redis.call(
      "HSET", key, "status", f.status, "sequence", f.sequence, "run_at", f.run_at, "created", moment,
      "priority", priority, "origin", request, "max_crashes", budget, "payload", payload
    )
    jobs[job_of(id)] = true
    enter(id, f)
    note(job_of(id), f.run_at)
  end
  answers[#answers + 1] = (not origin or origin == request) and 1 or 0
end
for job in pairs(jobs) do
  redis.call("SADD", P .. "jobs", job)
end
settle()
tell_soonest()
return answers
