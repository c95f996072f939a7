#!lua flags=allow-oom
--[[ purge_locks: locks that nobody holds and that ended so long ago are forgotten; tokens go on behind them.
  KEYS[1] prefix of the namespace's keys   ARGV[1] age in ms
  Returns how many; 10000 at the most in one call.   Guarantees G2, G14. ]]
--@include lib/clock.lua
local before = now - ARGV[1]
local from, to = string.format("%.0f", -before), string.format("%.0f", before)
local gone = redis.call("ZRANGEBYSCORE", P .. "k", from, to, "LIMIT", 0, 10000) -- free: below zero; held: above
for _, name in ipairs(gone) do
  redis.call("ZREM", P .. "k", name)
  redis.call("DEL", P .. "k:" .. name)
end
return #gone
