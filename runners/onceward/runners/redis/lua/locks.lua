#!lua flags=no-writes
--[[ locks: those that are held, lapsed ones among them.
  KEYS[1] prefix of the namespace's keys
  Returns {now, then for each {name, holder, token, request, lease_ms, until, acquired, note in JSON or ""}}. ]]
--@include lib/clock.lua
local found = {now}
for _, name in ipairs(redis.call("ZRANGE", P .. "kh", 0, -1)) do
  local lock = redis.call(
    "HMGET", P .. "k:" .. name, "holder", "token", "request", "lease_ms", "until", "acquired", "note"
  )
  table.insert(lock, 1, name)
  found[#found + 1] = lock
end
return found
