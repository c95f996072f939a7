#!lua flags=allow-oom
--[[ renew: leases that are still the newest and have not lapsed end so long after now.
  KEYS[1] prefix of the namespace's keys
  ARGV    six per lease: "run" or "lock", run id or escaped lock name, token, request of the lease,
          duration in ms ("": the lease's own), progress in JSON ("": as it is)
  Returns for each 1 held, 2 held but asked to stop, 0 lost: nothing changed.   Guarantees G4. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/facts.lua
--@include lib/lists.lua
--@include lib/lock_text.lua
-- What a renewal does not look at, it does not ask for.
FACTS = {
  "status", "token", "request", "sequence", "origin", "until", "lease_ms", "created", "run_at", "cancel_requested",
  "holder",
}

local function renew_run(id, token, request, duration, progress)
  local key = P .. "r:" .. id
  local f = facts(id)
  if not f or f.status ~= "running" or f.token ~= token or f.request ~= request or lapsed(f) then
    return 0
  end
  local ends = f["until"]
  if ends and duration ~= "" then
    local job, later = job_of(id), string.format("%d", now + duration)
    redis.call("HSET", key, "lease_ms", duration, "until", later)
    if redis.call("ZADD", P .. "x:" .. job, later, id) == 1 then -- seen to lapse, and the server's clock went back
      redis.call("ZREM", P .. "d:" .. job, place_lapsed(id, f))
    end
    if tonumber(later) < tonumber(ends) then
      tell("j", job, later)
    end
  end
  if progress ~= "" then
    redis.call("HSET", key, "progress", progress)
  end
  return f.cancel_requested and 2 or 1
end

local function renew_lock(name, token, request, duration)
  local held, newest, proof, lease_ms, ends, acquired, holder, words = lock_text(name)
  if newest ~= token or proof ~= request or held ~= "1" or tonumber(ends) <= now then
    return 0
  end
  duration = duration ~= "" and duration or lease_ms
  local later = string.format("%d", now + duration)
  keep(name, "1", token, request, duration, later, acquired, holder, words)
  if tonumber(later) < tonumber(ends) then
    tell("l", name, later)
  end
  return 1
end

local answers = {}
for i = 1, #ARGV, 6 do
  local renew = ARGV[i] == "lock" and renew_lock or renew_run
  answers[#answers + 1] = renew(unpack(ARGV, i + 1, i + 5))
end
return answers
