#!lua flags=allow-oom
--[[ unlock: the lock is free, if this lease is its newest and live.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] token   ARGV[3] request of the lease
  Returns 1 freed (now, or before and not taken since), 0 not, and nothing changed.   Guarantees G4, G7. ]]
--@include lib/clock.lua
--@include lib/tell.lua
local name = ARGV[1]
local key = P .. "k:" .. name
local token, proof, ends, held = unpack(redis.call("HMGET", key, "token", "request", "until", "held"))
if token ~= ARGV[2] or proof ~= ARGV[3] then
  return 0
elseif held == "0" then
  return 1
elseif tonumber(ends) <= now then
  return 0
end
redis.call("HSET", key, "held", "0")
redis.call("ZREM", P .. "kh", name)
redis.call("ZADD", P .. "kf", ends, name)
tell("l", name, "0")
return 1
