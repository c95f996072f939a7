#!lua
--[[ reschedule: a SCHEDULED run is due at another time.
  KEYS[1] prefix of the namespace's keys   ARGV[1] run id   ARGV[2] run_at in ms
  Returns 1; 0: it is absent, held or ended, and nothing changed. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/facts.lua
--@include lib/lists.lua
local id = ARGV[1]
local f = facts(id)
if not f or f.status ~= "scheduled" then
  return 0
end
leave(id, f)
f.run_at = ARGV[2]
redis.call("HSET", P .. "r:" .. id, "run_at", f.run_at)
enter(id, f)
tell("j", job_of(id), f.run_at)
return 1
