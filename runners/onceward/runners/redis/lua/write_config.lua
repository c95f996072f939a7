#!lua
--[[ write_config: the document is written, with the next version, if its version is still the expected one.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] document in JSON ("": delete it)   ARGV[3] expected version   ARGV[4] request
  Returns {version, document, updated}; false: its version is another one, nothing changed.
  A deleted document stays, marked, so that a version never comes back.   Guarantees G7, G11. ]]
--@include lib/clock.lua
--@include lib/tell.lua
local name, document = ARGV[1], ARGV[2]
local key = P .. "c:" .. name
local version, kept, updated, request, deleted =
  unpack(redis.call("HMGET", key, "version", "document", "updated", "request", "deleted"))
if request == ARGV[4] then
  return {version, kept, updated}
end
local exists = version and not deleted
if ARGV[3] ~= (exists and version or "0") or (document == "" and not exists) then
  return false
end
version = string.format("%.0f", (version or 0) + 1)
redis.call("HSET", key, "version", version, "updated", moment, "request", ARGV[4])
if document == "" then
  redis.call("HSET", key, "deleted", 1)
  redis.call("SREM", P .. "configs", name)
else
  kept = document
  redis.call("HSET", key, "document", document)
  redis.call("HDEL", key, "deleted")
  redis.call("SADD", P .. "configs", name)
end
tell("c", "", "0")
return {version, kept, moment}
