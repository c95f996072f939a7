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
