-- The soonest instant for each job, told once by a script for many runs: tell_soonest() ends it.
local soonest = {}
local function note(job, instant)
  local known = soonest[job]
  if not known or (known ~= instant and tonumber(instant) < tonumber(known)) then
    soonest[job] = instant
  end
end

local function tell_soonest()
  for job, instant in pairs(soonest) do
    tell("j", job, instant)
  end
end
