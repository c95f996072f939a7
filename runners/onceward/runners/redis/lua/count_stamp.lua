#!lua flags=no-writes
--[[ count_stamp: how many runs of a job are in a status under a stamp; page by page, so that others are served.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped job   ARGV[2] status   ARGV[3] escaped stamp   ARGV[4] sequence behind which to go on
  Returns {count, sequence to go on behind (false: that is all)}. ]]
local LOOKS = 10000
local list, after = KEYS[1] .. "l:" .. ARGV[1] .. ":" .. ARGV[2], "(" .. ARGV[4]
local ids = redis.call("ZRANGEBYSCORE", list, after, "+inf", "LIMIT", 0, LOOKS)
local count = 0
for _, id in ipairs(ids) do
  if string.match(id, "[^:]*$") == ARGV[3] then
    count = count + 1
  end
end
return {count, #ids == LOOKS and redis.call("ZSCORE", list, ids[LOOKS])}
