-- Channels. A message is the instant (ms) from which on it is worth looking again; 0: at once. Watches ask every few
-- seconds anyway, so what is further away than FAR need not be told.
local FAR = 15000
local function tell(topic, name, instant)
  if tonumber(instant) < now + FAR then
    redis.call("SPUBLISH", P .. "!" .. topic .. ":" .. name, instant)
  end
end

-- The soonest instant for each job, told once by a script for many runs: tell_soonest() ends it.
local soonest = {}
local function note(job, instant)
  if not soonest[job] or tonumber(instant) < tonumber(soonest[job]) then
    soonest[job] = instant
  end
end

local function tell_soonest()
  for job, instant in pairs(soonest) do
    tell("j", job, instant)
  end
end
