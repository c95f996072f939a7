#!lua
--[[ checkin: may the caller run this? Submit and claim of exactly one run.
  KEYS[1] prefix of the namespace's keys
  ARGV    run id, holder, request, lease in ms ("": never lapses); then all of these or none: on_failed (else "block"),
          on_abandoned (else "rerun"), max_crashes (else "": no limit), payload in JSON (else "": none)
  Returns "<now> <number>": created, where number is its token and its sequence (the server is slower to answer lists);
       or {outcome, now, fields of the run as it is now}.
  Guarantees G1, G2, G5. ]]
--@include lib/clock.lua
--@include lib/tell.lua
local call, format = redis.call, string.format
local id, holder, request, lease_ms, on_failed, on_abandoned, budget, payload = unpack(ARGV)
local key, job = P .. "r:" .. id, string.match(id, "^[^:]*")
local running = P .. "l:" .. job .. ":running"
local found = call("EXISTS", key, key, running) -- 2 or 3: the run is known; 1: only its job, which has others running

if found < 2 then
  local number = format("%d", call("INCR", P .. "n"))
  call(
    "HSET", key, "status", "running", "sequence", number, "created", moment, "origin", request, "holder", holder,
    "lease_ms", lease_ms
  )
  if payload then
    call("HSET", key, "max_crashes", budget, "payload", payload)
  end
  call("ZADD", running, number, id)
  if found == 0 then
    call("SADD", P .. "jobs", job)
  end
  if lease_ms == "" then
    call("ZADD", P .. "x:" .. job, "+inf", id)
  else
    local ends = format("%d", now + lease_ms)
    call("ZADD", P .. "x:" .. job, ends, id)
    tell("j", job, ends)
  end
  return moment .. " " .. number
end

--@include lib/soonest.lua
--@include lib/facts.lua
--@include lib/history.lua
--@include lib/lists.lua
--@include lib/hold.lua
--@include lib/bury.lua
local function decide(f)
  local function admit(outcome)
    local by = {holder = holder, request = request, lease_ms = tonumber(lease_ms), budget = budget or ""}
    hold(id, f, by, format("%d", call("INCR", P .. "n")))
    return outcome
  end

  if f.status == "running" and f.request == request then
    return f.takeover and "taken_over" or "admitted"
  end
  if f.status == "succeeded" then
    return "done"
  elseif f.status == "cancelled" then
    return "cancelled"
  elseif f.status == "failed" then
    if on_failed ~= "rerun" or obtained_by(id, f, request) then
      return "failed"
    end
    return admit("admitted")
  elseif f.status == "scheduled" then
    if tonumber(f.run_at) > now or obtained_by(id, f, request) then
      return "scheduled"
    end
    return admit("admitted")
  end
  if not lapsed(f) then
    return "running"
  elseif on_abandoned == "hold" or obtained_by(id, f, request) then
    return "abandoned"
  elseif exhausted(f, tonumber(budget)) then
    bury(id, f)
    return "failed"
  end
  return admit("taken_over")
end

local outcome = decide(facts(id))
tell_soonest()
return {outcome, moment, call("HGETALL", key)}
