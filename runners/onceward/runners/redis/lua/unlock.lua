#!lua flags=allow-oom
--[[ unlock: the lock is free, if this lease is its newest and live.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] escaped name   ARGV[2] token   ARGV[3] request of the lease
  Returns 1 freed (now, or before and not taken since), 0 not, and nothing changed.   Guarantees G4, G7. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/lock_text.lua
local name = ARGV[1]
local held, token, proof, length, ends, acquired, holder, words = lock_text(name)
if token ~= ARGV[2] or proof ~= ARGV[3] then
  return 0
elseif held == "0" then
  return 1
elseif tonumber(ends) <= now then
  return 0
end
keep(name, "0", token, proof, length, ends, acquired, holder, words)
tell("l", name, "0")
return 1
