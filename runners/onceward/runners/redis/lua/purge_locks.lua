#!lua flags=allow-oom
--[[ purge_locks: locks that nobody holds and that ended so long ago are forgotten; tokens go on behind them.
  KEYS[1] prefix of the namespace's keys   ARGV[1] age in ms
  Returns how many; 10000 at the most in one call.   Guarantees G2, G14. ]]
--@include lib/clock.lua
local before, gone = string.format("%.0f", now - ARGV[1]), 0
for _, list in ipairs({P .. "kf", P .. "kh"}) do
  for _, name in ipairs(redis.call("ZRANGEBYSCORE", list, "-inf", before, "LIMIT", 0, 5000)) do
    redis.call("ZREM", list, name)
    redis.call("DEL", P .. "k:" .. name)
    gone = gone + 1
  end
end
return gone
