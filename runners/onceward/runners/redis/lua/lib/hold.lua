local ends_after = {}
local function after(lease_ms) -- texts of numbers are slow to make, and a claim has few leases that differ
  ends_after[lease_ms] = ends_after[lease_ms] or string.format("%d", now + lease_ms)
  return ends_after[lease_ms]
end

-- The caller holds the run: next attempt, new token, new lease. A lapsed attempt before it is written off; a wish
-- that the run should stop outlives it, as there is none once an attempt has ended otherwise.
--   by: holder, request, lease_ms (nil: never lapses), claim (nil: a check-in), budget ("": no limit)
local function hold(id, f, by, token)
  leave(id, f)
  local key, takeover, number = P .. "r:" .. id, f.status == "running", tonumber(f.attempt or 0) + 1
  local ends = by.lease_ms and after(by.lease_ms)
  if number > 1 then
    redis.call("HSET", key, "a" .. number - 1, archived(id, f, takeover))
  end
  if f.attempt or f.rearmed then -- a fresh run has nothing of these, and looking for each takes time
    redis.call(
      "HDEL", key, "ended", "result", "error", "progress", "rearmed", "attempt_ended", "ending", "checkout", "claim",
      "attempt_token", "attempt_request", "a" .. number - KEPT
    )
  end
  redis.call(
    "HSET", key, "status", "running", "token", token, "request", by.request, "holder", by.holder, "attempt", number,
    "started", moment, "takeover", takeover and "1" or "", "lease_ms", by.lease_ms or "", "until", ends or "",
    "max_crashes", by.budget, "claim", by.claim or ""
  )
  if takeover then
    redis.call("HSET", key, "crashes", tonumber(f.crashes or 0) + 1)
  end
  if by.claim then
    put(P .. "h:" .. by.claim, token, id)
  end
  f.status, f["until"] = "running", ends
  enter(id, f)
  if ends then
    note(job_of(id), ends)
  end
end
