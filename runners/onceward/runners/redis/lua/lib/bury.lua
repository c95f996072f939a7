-- A lapsed run whose crash budget is used up has ended as FAILED.
local function bury(id, f)
  leave(id, f)
  f.status, f.ended = "failed", moment
  redis.call(
    "HSET", P .. "r:" .. id, "status", f.status, "ended", moment, "crashes", tonumber(f.crashes or 0) + 1,
    "attempt_ended", moment, "ending", "abandoned", "error", "abandoned"
  )
  redis.call("HDEL", P .. "r:" .. id, "lease_ms", "until", "claim", "cancel_requested")
  enter(id, f)
  note(job_of(id), "0")
  tell("r", id, "0")
end
