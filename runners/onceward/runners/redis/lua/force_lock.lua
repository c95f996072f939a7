#!lua flags=allow-oom
--[[ force_lock: whoever held the lock has lost it, fenced off by a larger token.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] token that must be the newest ("": any)
  Returns {holder, token, request, lease_ms, until} of the lease it had; false: nobody held it, nothing changed.
  Guarantees G2. ]]
--@include lib/clock.lua
--@include lib/tell.lua
local name = ARGV[1]
local key = P .. "k:" .. name
local holder, token, request, lease_ms, ends, held =
  unpack(redis.call("HMGET", key, "holder", "token", "request", "lease_ms", "until", "held"))
if held ~= "1" or tonumber(ends) <= now or (ARGV[2] ~= "" and ARGV[2] ~= token) then
  return false
end
local fence = string.format("%d", redis.call("INCR", P .. "n"))
redis.call("HSET", key, "token", fence, "request", "forced:" .. fence, "held", "0")
redis.call("ZREM", P .. "kh", name)
redis.call("ZADD", P .. "kf", ends, name)
tell("l", name, "0")
return {holder, token, request, lease_ms, ends}
