-- A run stands in the lists of its status, and in no others. All are sorted sets, so each step costs O(log n).
--   l:<job>:<status>   every run                 score sequence                   member id
--   w:<job>:<priority> SCHEDULED                 score run_at                     member sequence (16 digits) .. id
--   p:<job>            priorities in w           score -priority                  member priority
--   x:<job>            RUNNING                   score until (+inf: never)        member id
--   d:<job>            RUNNING, seen to lapse    score -priority                  member run_at (15), sequence (16), id
--   e:<job>            ended                     score ended                      member sequence (16), letter, id
-- What is in d is no longer in x; a claim moves it. f: the run's fields.
-- A script for many runs collects its changes with together() and makes them with settle(), one command per list: each
-- run changes its place once in a script, so the order in which they are made does not matter.
local MOST = 2000
local gone, come, lapsing

local function together()
  gone, come, lapsing = {}, {}, {}
end

local function drop(list, member)
  if not gone then
    return redis.call("ZREM", list, member)
  end
  local members = gone[list] or {}
  gone[list], members[#members + 1] = members, member
end

local function put(list, score, member)
  if not come then
    return redis.call("ZADD", list, score, member)
  end
  local entries = come[list] or {}
  local n = #entries
  come[list], entries[n + 1], entries[n + 2] = entries, score, member
end

local function settle()
  for list, members in pairs(gone) do
    for i = 1, #members, MOST do
      redis.call("ZREM", list, unpack(members, i, math.min(i + MOST - 1, #members)))
    end
  end
  for list, entries in pairs(come) do
    for i = 1, #entries, MOST do
      redis.call("ZADD", list, unpack(entries, i, math.min(i + MOST - 1, #entries)))
    end
  end
end

-- True if runs of the job were seen to lapse; asked once for many.
local function seen_lapsing(job)
  if not lapsing then
    return redis.call("EXISTS", P .. "d:" .. job) == 1
  end
  if lapsing[job] == nil then
    lapsing[job] = redis.call("EXISTS", P .. "d:" .. job) == 1
  end
  return lapsing[job]
end

local jobs_of = {}
local function job_of(id)
  local job = jobs_of[id]
  if not job then
    job = string.match(id, "^[^:]*")
    jobs_of[id] = job
  end
  return job
end

local function sixteen(sequence)
  return string.sub("000000000000000" .. sequence, -16)
end

local function place_lapsed(id, f)
  return string.format("%015.0f", f.run_at) .. sixteen(f.sequence) .. id
end

local function place_ended(id, f)
  return sixteen(f.sequence) .. string.sub(f.status, 1, 1) .. id
end

local fronts = {} -- the lists of waiting runs whose priority this script has noted in p
local function enter(id, f)
  local job = job_of(id)
  put(P .. "l:" .. job .. ":" .. f.status, f.sequence, id)
  if f.status == "scheduled" then
    local priority = f.priority or "0"
    local waiting = P .. "w:" .. job .. ":" .. priority
    put(waiting, f.run_at, sixteen(f.sequence) .. id)
    if not fronts[waiting] then
      fronts[waiting] = true
      put(P .. "p:" .. job, -priority, priority)
    end
  elseif f.status == "running" then
    put(P .. "x:" .. job, f["until"] or "+inf", id)
  else
    put(P .. "e:" .. job, f.ended, place_ended(id, f))
  end
end

local function leave(id, f)
  local job = job_of(id)
  drop(P .. "l:" .. job .. ":" .. f.status, id)
  if f.status == "scheduled" then
    local waiting = sixteen(f.sequence) .. id
    drop(P .. "w:" .. job .. ":" .. (f.priority or "0"), waiting)
  elseif f.status == "running" then
    drop(P .. "x:" .. job, id)
    if seen_lapsing(job) then
      drop(P .. "d:" .. job, place_lapsed(id, f))
    end
    if f.claim then
      drop(P .. "h:" .. f.claim, id)
    end
  else
    drop(P .. "e:" .. job, place_ended(id, f))
  end
end
