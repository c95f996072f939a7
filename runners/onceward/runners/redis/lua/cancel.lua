#!lua flags=allow-oom
--[[ cancel: a SCHEDULED run will not start; a RUNNING one's holder is asked to stop.
  KEYS[1] prefix of the namespace's keys   ARGV[1] run id
  Returns "cancelled" | "requested" | "ended" | "absent"; only the first two change something, and only once. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/facts.lua
--@include lib/lists.lua
local id = ARGV[1]
local f = facts(id)
if not f then
  return "absent"
elseif f.status == "running" then
  redis.call("HSET", P .. "r:" .. id, "cancel_requested", 1)
  return "requested"
elseif f.status == "cancelled" then
  return "cancelled"
elseif f.status ~= "scheduled" then
  return "ended"
end
leave(id, f)
f.status, f.ended = "cancelled", moment
redis.call("HSET", P .. "r:" .. id, "status", f.status, "ended", moment)
enter(id, f)
tell("j", job_of(id), "0")
tell("r", id, "0")
return "cancelled"
