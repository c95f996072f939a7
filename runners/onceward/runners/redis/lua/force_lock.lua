#!lua flags=allow-oom
--[[ force_lock: whoever held the lock has lost it, fenced off by a larger token.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] token that must be the newest ("": any)
  Returns {holder, token, request, lease_ms, until} of the lease it had; false: nobody held it, nothing changed.
  Guarantees G2. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/lock_text.lua
local name = ARGV[1]
local held, token, request, lease_ms, ends, acquired, holder, words = lock_text(name)
if held ~= "1" or tonumber(ends) <= now or (ARGV[2] ~= "" and ARGV[2] ~= token) then
  return false
end
local fence = string.format("%d", redis.call("INCR", P .. "n"))
keep(name, "0", fence, "forced:" .. fence, lease_ms, ends, acquired, holder, words)
tell("l", name, "0")
return {holder, token, request, lease_ms, ends}
