#!lua
--[[ checkin: may the caller run this? Submit and claim of exactly one run; several callers may share one call.
  KEYS[1] prefix of the namespace's keys
  ARGV    eight per check-in: run id, holder, request, lease in ms ("": never lapses), on_failed, on_abandoned,
          max_crashes ("": no limit), payload in JSON ("": none)
  Returns for each {outcome, now, number}: created, where number is its token and its sequence;
       or {outcome, now, false, fields of the run as it is now}; or an error that is of this one only.
  Guarantees G1, G2, G5. ]]
--@include lib/clock.lua
--@include lib/tell.lua
local call, format = redis.call, string.format

-- The new run stands in its hash; its lease ends then ("": never).
local function write(i, number)
  local id, holder, request, lease_ms, _, _, budget, payload = unpack(ARGV, i, i + 7)
  local ends = lease_ms ~= "" and format("%.0f", now + lease_ms) or ""
  call(
    "HSET", P .. "r:" .. id, "status", "running", "sequence", number, "token", number, "run_at", moment,
    "created", moment, "started", moment, "request", request, "origin", request, "holder", holder, "attempt", "1",
    "lease_ms", lease_ms, "until", ends
  )
  if budget ~= "" or payload ~= "" then
    call("HSET", P .. "r:" .. id, "max_crashes", budget, "payload", payload)
  end
  return ends
end

if not ARGV[9] and call("EXISTS", P .. "r:" .. ARGV[1]) == 0 then -- the common case: no tables, no loops
  local id, number = ARGV[1], format("%d", call("INCR", P .. "n"))
  local job, ends = string.match(id, "^[^:]*"), write(1, number)
  call("ZADD", P .. "l:" .. job .. ":running", number, id)
  call("ZADD", P .. "x:" .. job, ends ~= "" and ends or "+inf", id)
  call("SADD", P .. "jobs", job)
  if ends ~= "" then
    tell("j", job, ends)
  end
  return {{"admitted", moment, number}}
end

-- Several at once: each list is written to once.
local answers, new, known, seen = {}, {}, {}, {}
for i = 1, #ARGV, 8 do
  local id = ARGV[i]
  if seen[id] or call("EXISTS", P .. "r:" .. id) == 1 then
    known[#known + 1] = i
  else
    seen[id], new[#new + 1] = true, i
  end
end

local places = {} -- by job: what goes into its lists, scores and ids in turn
local last = #new > 0 and call("INCRBY", P .. "n", #new)
for at, i in ipairs(new) do
  local id = ARGV[i]
  local number, job = format("%d", last - #new + at), string.match(id, "^[^:]*")
  local ends = write(i, number)
  local place = places[job] or {numbers = {}, leases = {}}
  local n = #place.numbers
  place.numbers[n + 1], place.numbers[n + 2] = number, id
  place.leases[n + 1], place.leases[n + 2] = ends ~= "" and ends or "+inf", id
  places[job], answers[(i + 7) / 8] = place, {"admitted", moment, number}
end
for job, place in pairs(places) do
  call("ZADD", P .. "l:" .. job .. ":running", unpack(place.numbers))
  call("ZADD", P .. "x:" .. job, unpack(place.leases))
  call("SADD", P .. "jobs", job)
  for n = 1, #place.leases, 2 do
    if place.leases[n] ~= "+inf" then
      tell("j", job, place.leases[n])
    end
  end
end
if #known == 0 then
  return answers
end

--@include lib/facts.lua
--@include lib/history.lua
--@include lib/lists.lua
--@include lib/hold.lua
--@include lib/bury.lua
local function decide(id, f, holder, request, lease_ms, on_failed, on_abandoned, budget)
  local function admit(outcome)
    local by = {holder = holder, request = request, lease_ms = tonumber(lease_ms), budget = budget}
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
    if on_failed == "block" or obtained_by(id, f, request) then
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

local function settle(i)
  local id = ARGV[i]
  local outcome = decide(id, facts(id), unpack(ARGV, i + 1, i + 6))
  return {outcome, moment, false, call("HGETALL", P .. "r:" .. id)}
end

if #ARGV == 8 then
  return {settle(1)}
end
for _, i in ipairs(known) do
  local settled, answer = pcall(settle, i) -- what is wrong with one run is no matter of the others
  answers[(i + 7) / 8] = (settled or type(answer) == "table") and answer or {err = "ERR " .. answer}
end
return answers
