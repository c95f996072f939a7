#!lua
--[[ lock: the lock is the caller's, if nobody has a live lease on it and this is no late copy of an older request.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] holder   ARGV[3] request   ARGV[4] lease in ms   ARGV[5] note in JSON ("": none)
  Returns {"mine" | "theirs", now, holder, token, request, lease_ms, until}; or {"late"}: granted before, and over.
  A lock is a hash k:<name>; kh has those that are held, kf those that are free (score: until, member: name).
  Guarantees G2, G3, G5, G7. ]]
--@include lib/clock.lua
--@include lib/tell.lua
local name, holder, request, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = P .. "k:" .. name
local theirs, token, proof, length, ends, held =
  unpack(redis.call("HMGET", key, "holder", "token", "request", "lease_ms", "until", "held"))
if held == "1" and tonumber(ends) > now then
  return {proof == request and "mine" or "theirs", moment, theirs, token, proof, length, ends}
elseif held and proof == request then
  return {"late"}
end
token, ends = string.format("%d", redis.call("INCR", P .. "n")), string.format("%.0f", now + lease_ms)
redis.call(
  "HSET", key, "holder", holder, "token", token, "request", request, "lease_ms", ARGV[4], "until", ends,
  "acquired", moment, "held", "1", "note", ARGV[5]
)
if held == "0" then
  redis.call("ZREM", P .. "kf", name)
end
redis.call("ZADD", P .. "kh", ends, name)
tell("l", name, ends)
return {"mine", moment, holder, token, request, ARGV[4], ends}
