#!lua
--[[ lock: the lock is the caller's, if nobody has a live lease on it and this is no late copy of an older request.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] holder   ARGV[3] request   ARGV[4] lease in ms   ARGV[5] note in JSON ("": none)
  Returns "<now> <token>": granted (the server is slower to answer lists);
       or {"mine" | "theirs", now, holder, token, request, lease_ms, until}; or {"late"}: granted before, and over.
  Guarantees G2, G3, G5, G7. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/lock_text.lua
local name, holder, request, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local held, token, proof, length, ends, _, theirs = lock_text(name)
if held == "1" and tonumber(ends) > now then
  return {proof == request and "mine" or "theirs", moment, theirs, token, proof, length, ends}
elseif held and proof == request then
  return {"late"}
end
token, ends = string.format("%d", redis.call("INCR", P .. "n")), string.format("%d", now + lease_ms)
keep(name, "1", token, request, lease_ms, ends, moment, holder, ARGV[5])
tell("l", name, ends)
return moment .. " " .. token
