-- now: the server's clock in whole milliseconds since 1970; moment: the same as text (Lua is slow at making texts of
-- numbers); P: what every key of the namespace begins with.
local P = KEYS[1]
local time = redis.call("TIME")
local moment = time[1] .. string.sub("00000" .. time[2], -6, -4)
local now = tonumber(moment)
