-- Channels. A message is the instant (ms) from which on it is worth looking again; 0: at once. Watches ask every few
-- seconds anyway, so what is further away than FAR need not be told.
local FAR = 15000
local function tell(topic, name, instant)
  if tonumber(instant) < now + FAR then
    redis.call("SPUBLISH", P .. "!" .. topic .. ":" .. name, instant)
  end
end
