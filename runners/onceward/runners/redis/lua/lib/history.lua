-- Attempts. The newest one is spread over fields of its run, none of them long, so that the server keeps the hash in
-- its compact form: attempt (its number), holder, started, takeover, attempt_ended, ending, checkout, error; token and
-- request, unless it was fenced off: then they are in attempt_token and attempt_request.
-- The one numbered n before it is the field "a<n>", its parts between unit separators (ids, holders and JSON hold no
-- control characters): number holder token request started takeover ended ending checkout error. KEPT are kept in all.
local KEPT, SEP = 20, "\31"

-- The newest attempt, which is about to be followed by another one, as one text.
local function archived(id, f, abandoned)
  local holder, started, ended, ending, checkout, failure, fenced = unpack(redis.call(
    "HMGET", P .. "r:" .. id, "holder", "started", "attempt_ended", "ending", "checkout", "error", "attempt_token"
  ))
  if abandoned then
    ended, ending, checkout, failure = moment, "abandoned", "", ""
  elseif failure == "abandoned" then
    failure = ""
  end
  return table.concat({
    f.attempt, holder, fenced or f.token, f.attempt_request or f.request, started or f.created, f.takeover or "", ended, ending,
    checkout or "", failure or "",
  }, SEP)
end

-- The parts of the attempts before the newest one.
local function earlier(id, f)
  local newest, names = tonumber(f.attempt or 0), {}
  for number = math.max(1, newest - KEPT + 1), newest - 1 do
    names[#names + 1] = "a" .. number
  end
  local found = {}
  for i, text in ipairs(#names > 0 and redis.call("HMGET", P .. "r:" .. id, unpack(names)) or {}) do
    found[i] = {}
    for part in string.gmatch(text .. SEP, "([^" .. SEP .. "]*)" .. SEP) do
      table.insert(found[i], part)
    end
  end
  return found
end

-- True if an attempt was obtained by this request.
local function obtained_by(id, f, request)
  if (f.attempt_request or f.request) == request then
    return true
  end
  for _, attempt in ipairs(earlier(id, f)) do
    if attempt[4] == request then
      return true
    end
  end
  return false
end

-- True if the attempt with this token was ended by this request.
local function ended_by(id, f, token, request)
  local fenced, checkout = unpack(redis.call("HMGET", P .. "r:" .. id, "attempt_token", "checkout"))
  if (fenced or f.token) == token and checkout == request then
    return true
  end
  for _, attempt in ipairs(earlier(id, f)) do
    if attempt[3] == token and attempt[9] == request then
      return true
    end
  end
  return false
end
