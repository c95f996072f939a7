#!lua
--[[ claim: up to limit runs that were due, or whose lease had lapsed, are held by the caller.
  KEYS[1] prefix of the namespace's keys
  ARGV[1] holder   ARGV[2] request   ARGV[3] request, escaped   ARGV[4] limit   ARGV[5] lease in ms
  ARGV[6] "any": of any job; "these": four per job follow: job, limit, max_running ("": no limit), lease in ms
  Returns {now, run, run ...} in the order of the claim. A run is its id and then its fields; one that nobody had
  before is {id, "", token, lease in ms, run_at, created, sequence, priority, origin, max_crashes, payload}: the caller
  knows the rest.
  A run's place in line is (priority, run_at, sequence). Due runs of one job are found by the front of each priority
  in use, lapsed ones in d: O(log n) per run taken, job and priority, however long the queue is.
  Guarantees G1, G2, G12, G13. ]]
--@include lib/clock.lua
--@include lib/tell.lua
--@include lib/soonest.lua
--@include lib/facts.lua
--@include lib/history.lua
--@include lib/lists.lua
--@include lib/hold.lua
--@include lib/bury.lua
FACTS[#FACTS + 1] = "payload"
local holder, request, memo, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local PAGE = 64

local function public(id)
  local run = redis.call("HGETALL", P .. "r:" .. id)
  table.insert(run, 1, id)
  return run
end

local runs = {moment}
for i, id in ipairs(redis.call("ZRANGE", P .. "h:" .. memo, 0, -1)) do
  runs[i + 1] = public(id)
end
if #runs > 1 then
  return runs
end

local function wants()
  local found = {}
  if ARGV[6] == "any" then
    local jobs = redis.call("SMEMBERS", P .. "jobs")
    for _, job in ipairs(jobs) do
      found[#found + 1] = {job = job, room = limit, lease_ms = tonumber(ARGV[5])}
    end
    return found
  end
  for i = 7, #ARGV, 4 do
    local job, most, running, lease_ms = unpack(ARGV, i, i + 3)
    local room = math.min(limit, tonumber(most))
    found[#found + 1] = {job = job, room = room, running = tonumber(running), lease_ms = tonumber(lease_ms)}
  end
  return found
end

-- Runs of the job whose leases are over stand in d, in the order of claims.
local function note_lapsed(job)
  local leases = P .. "x:" .. job
  while true do
    local over = redis.call("ZRANGEBYSCORE", leases, "-inf", now, "LIMIT", 0, 1000)
    if #over == 0 then
      return
    end
    for _, id in ipairs(over) do
      local f = facts(id)
      redis.call("ZADD", P .. "d:" .. job, -(f.priority or "0"), place_lapsed(id, f))
    end
    redis.call("ZREM", leases, unpack(over))
  end
end

-- The runs of one job that are due, best first: page by page, one priority after the other.
local function due(job)
  local priorities = redis.call("ZRANGE", P .. "p:" .. job, 0, -1)
  local which, offset, page, at = 1, 0, {}, 1
  return function()
    while which <= #priorities do
      local priority = priorities[which]
      local key = P .. "w:" .. job .. ":" .. priority
      if at > #page then
        local most = math.min(PAGE, limit)
        page = redis.call("ZRANGEBYSCORE", key, "-inf", now, "WITHSCORES", "LIMIT", offset, most)
        offset, at = offset + most, 1
      end
      if #page > 0 then
        local member, run_at = page[at], page[at + 1]
        at = at + 2
        return {
          priority = tonumber(priority), run_at = tonumber(run_at), sequence = tonumber(string.sub(member, 1, 16)),
          id = string.sub(member, 17),
        }
      end
      if offset == math.min(PAGE, limit) and redis.call("EXISTS", key) == 0 then
        redis.call("ZREM", P .. "p:" .. job, priority)
      end
      which, offset = which + 1, 0
    end
  end
end

-- The lapsed runs of one job, best first.
local function over(job)
  local offset, page, at = 0, {}, 1
  return function()
    if at > #page then
      page = redis.call("ZRANGE", P .. "d:" .. job, offset, offset + PAGE - 1, "WITHSCORES")
      offset, at = offset + PAGE, 1
    end
    if #page == 0 then
      return nil
    end
    local member, score = page[at], page[at + 1]
    at = at + 2
    return {
      priority = -score, run_at = tonumber(string.sub(member, 1, 15)),
      sequence = tonumber(string.sub(member, 16, 31)), id = string.sub(member, 32), lapsed = true,
    }
  end
end

local function before(a, b)
  if a.priority ~= b.priority then
    return a.priority > b.priority
  elseif a.run_at ~= b.run_at then
    return a.run_at < b.run_at
  end
  return a.sequence < b.sequence
end

local sources = {}
for _, want in ipairs(wants()) do
  note_lapsed(want.job)
  if want.running then
    want.room = math.min(want.room, want.running - redis.call("ZCARD", P .. "x:" .. want.job))
  end
  if want.room > 0 then
    for _, next in ipairs({due(want.job), over(want.job)}) do
      sources[#sources + 1] = {want = want, next = next, head = next()}
    end
  end
end

-- Look first, change afterwards: the pages stay what they are.
local taken, buried, strayed = {}, {}, {}
while #taken < limit do
  local best
  for _, source in ipairs(sources) do
    if source.head and source.want.room > 0 and (not best or before(source.head, best.head)) then
      best = source
    end
  end
  if not best then
    break
  end
  local item = best.head
  item.want, item.f = best.want, facts(item.id)
  if item.lapsed and not lapsed(item.f) then
    strayed[#strayed + 1] = item
  elseif exhausted(item.f, item.f.max_crashes) then
    buried[#buried + 1] = item
  else
    taken[#taken + 1] = item
    best.want.room = best.want.room - 1
  end
  best.head = best.next()
end

for _, item in ipairs(strayed) do -- the server's clock went back: it is live again
  redis.call("ZREM", P .. "d:" .. item.want.job, place_lapsed(item.id, item.f))
  redis.call("ZADD", P .. "x:" .. item.want.job, item.f["until"] or "+inf", item.id)
end
together()
for _, item in ipairs(buried) do
  bury(item.id, item.f)
end
local token = #taken > 0 and redis.call("INCRBY", P .. "n", #taken) - #taken or 0
for i, item in ipairs(taken) do
  local id, f, mine = item.id, item.f, string.format("%d", token + i)
  local fresh = not (f.attempt or f.rearmed)
  local by = {holder = holder, request = request, claim = memo, lease_ms = item.want.lease_ms, budget = f.max_crashes or ""}
  hold(id, f, by, mine)
  runs[i + 1] = not fresh and public(id) or {
    id, "", mine, by.lease_ms, f.run_at, f.created, f.sequence, f.priority or "0", f.origin, by.budget,
    f.payload or "",
  }
end
settle()
tell_soonest()
return runs
