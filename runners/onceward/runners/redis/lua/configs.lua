#!lua flags=no-writes
--[[ configs: the documents that exist.
  KEYS[1] prefix of the namespace's keys   ARGV[1] escaped name ("": all)
  Returns {name, version, document, updated} for each, in any order. ]]
local P = KEYS[1]
local found = {}
for _, name in ipairs(ARGV[1] ~= "" and {ARGV[1]} or redis.call("SMEMBERS", P .. "configs")) do
  local version, document, updated, deleted =
    unpack(redis.call("HMGET", P .. "c:" .. name, "version", "document", "updated", "deleted"))
  if version and not deleted then
    found[#found + 1] = {name, version, document, updated}
  end
end
return found
