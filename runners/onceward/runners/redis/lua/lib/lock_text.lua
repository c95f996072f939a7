-- A lock is one text at k:<name>, its parts between unit separators, which names, ids and JSON do not hold. That is
-- quicker than a hash, since each change writes nearly all of it. Every lock stands in the sorted set k, its score the
-- end of its lease: as it is while somebody holds it, negative once it was let go.
local SEP = "\31"
local LOCK = "^(%d)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31(.*)$"

-- held ("1" or "0"), token, request, lease_ms, until, acquired, holder, note; nil if the lock is not known.
local function lock_text(name)
  return string.match(redis.call("GET", P .. "k:" .. name) or "", LOCK)
end

local function keep(name, held, token, request, lease_ms, ends, acquired, holder, words)
  redis.call(
    "SET", P .. "k:" .. name, held .. SEP .. token .. SEP .. request .. SEP .. lease_ms .. SEP .. ends .. SEP
      .. acquired .. SEP .. holder .. SEP .. words
  )
  redis.call("ZADD", P .. "k", held == "1" and ends or "-" .. ends, name)
end
