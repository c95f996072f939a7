-- The fields of a run that decide about it, by name; nil if there is no such run. What is absent or empty is nil.
local FACTS = {
  "status", "priority", "run_at", "sequence", "attempt", "failures", "crashes", "max_crashes", "token", "request",
  "attempt_request", "takeover", "lease_ms", "until", "ended", "claim", "rearmed",
}

local function facts(id)
  local found = redis.call("HMGET", P .. "r:" .. id, unpack(FACTS))
  if not found[1] then
    return nil
  end
  local f = {}
  for i, name in ipairs(FACTS) do
    if found[i] and found[i] ~= "" then
      f[name] = found[i]
    end
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
