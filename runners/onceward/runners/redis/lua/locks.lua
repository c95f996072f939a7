#!lua flags=no-writes
--[[ locks: those that are held, lapsed ones among them.
  KEYS[1] prefix of the namespace's keys
  Returns {now, then for each {name, holder, token, request, lease_ms, until, acquired, note in JSON or ""}}. ]]
--@include lib/clock.lua
--@include lib/lock_text.lua
local found = {now}
for _, name in ipairs(redis.call("ZRANGEBYSCORE", P .. "k", 0, "+inf")) do
  local _, token, request, lease_ms, ends, acquired, holder, words = lock_text(name)
  found[#found + 1] = {name, holder, token, request, lease_ms, ends, acquired, words}
end
return found
