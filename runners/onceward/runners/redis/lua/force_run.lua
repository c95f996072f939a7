#!lua flags=allow-oom
--[[ force_run: whoever held the run has lost it: its lease is over, and a larger token fences the old one off.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] run id   ARGV[2] token that must be the newest ("": any)
  Returns {holder, token, request, lease_ms, until} of the lease it had ("": it never lapsed); false: nobody held it.
  Guarantees G2. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/facts.lua
--@include lib/lists.lua
local id = ARGV[1]
local f = facts(id)
if not f or f.status ~= "running" or lapsed(f) or (ARGV[2] ~= "" and ARGV[2] ~= f.token) then
  return false
end
local fence = string.format("%d", redis.call("INCR", P .. "n"))
local had = {redis.call("HGET", P .. "r:" .. id, "holder"), f.token, f.request, f.lease_ms or "", f["until"] or ""}
leave(id, f)
redis.call("HSETNX", P .. "r:" .. id, "attempt_token", f.token)
redis.call("HSETNX", P .. "r:" .. id, "attempt_request", f.request)
redis.call("HSET", P .. "r:" .. id, "token", fence, "request", "forced:" .. fence, "until", moment)
redis.call("HDEL", P .. "r:" .. id, "claim")
f["until"] = moment
enter(id, f)
tell("j", job_of(id), "0")
return had
