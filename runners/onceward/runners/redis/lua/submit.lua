#!lua
--[[ submit: every run exists.
  KEYS[1] prefix of the namespace's keys
  ARGV    four per run: run id, how, payload in JSON ("": none), request
          how: "<when> <priority> <max_crashes>"; when: "<ms>": then, "+<ms>": so long after now; no max_crashes: no limit
  Returns for each 1 where this request made it, 0 where it was known already.
  A run is written with few fields: unless something sets them, its run_at is when it was created, its priority 0.
  Guarantees G1, G7, G13. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/soonest.lua
--@include lib/lists.lua
together()
local call, format = redis.call, string.format

local hows = {} -- most runs of a script are submitted in the same way
local function how_of(text)
  local how = hows[text]
  if not how then
    local plus, ms, priority, budget = string.match(text, "^(%+?)(%d+) (%-?%d+) (%d*)$")
    local run_at = plus == "" and ms or format("%d", now + ms)
    local fields = {"max_crashes", budget}
    if priority ~= "0" then
      fields[3], fields[4] = "priority", priority
    end
    if run_at ~= moment then
      fields[#fields + 1], fields[#fields + 2] = "run_at", run_at
    end
    how = {run_at = run_at, priority = priority, fields = fields}
    hows[text] = how
  end
  return how
end

local answers, jobs, last = {}, {}, nil
for i = 1, #ARGV, 4 do
  local id, payload, request = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local key = P .. "r:" .. id
  local origin = call("HGET", key, "origin")
  if not origin then
    local how = how_of(ARGV[i + 1])
    if not last then -- numbers for all that follow: those that are known leave gaps
      local left = (#ARGV - i + 1) / 4
      last = call("INCRBY", P .. "n", left) - left
    end
    last = last + 1
    local sequence = format("%d", last)
    call(
      "HSET", key, "status", "scheduled", "sequence", sequence, "created", moment, "origin", request,
      "payload", payload, unpack(how.fields)
    )
    jobs[job_of(id)] = true
    enter(id, {status = "scheduled", sequence = sequence, priority = how.priority, run_at = how.run_at})
    note(job_of(id), how.run_at)
  end
  answers[#answers + 1] = (not origin or origin == request) and 1 or 0
end
for job in pairs(jobs) do
  call("SADD", P .. "jobs", job)
end
settle()
tell_soonest()
return answers
