-- The fields of a run that decide about it, by name; nil if there is no such run. What is absent or empty is nil.
-- A run that a check-in made is written with few fields: until something sets them, its token is its sequence, its
-- request the origin, its attempt the first, run_at and started when it was created, and until so long after that.
local FACTS = {
  "status", "priority", "run_at", "sequence", "attempt", "failures", "crashes", "max_crashes", "token", "request",
  "attempt_request", "takeover", "lease_ms", "until", "ended", "claim", "rearmed", "created", "origin", "holder",
}

local function facts(id)
  local found = redis.call("HMGET", P .. "r:" .. id, unpack(FACTS))
  if not found[1] then
    return nil
  end
  local f = {}
  for i = 1, #FACTS do
    local value = found[i]
    if value and value ~= "" then
      f[FACTS[i]] = value
    end
  end
  f.run_at = f.run_at or f.created
  if f.holder then
    f.attempt, f.token, f.request = f.attempt or "1", f.token or f.sequence, f.request or f.origin
  end
  if f.lease_ms and not f["until"] then
    f["until"] = string.format("%d", f.created + f.lease_ms)
  end
  return f
end

local function lapsed(f)
  return f.status == "running" and f["until"] ~= nil and tonumber(f["until"]) <= now
end

-- True if it has lapsed and no further crash is forgiven.
local function exhausted(f, budget)
  return lapsed(f) and budget ~= nil and tonumber(f.crashes or 0) >= tonumber(budget)
end
