-- A run stands in the lists of its status, and in no others. All are sorted sets, so each step costs O(log n).
--   l:<job>:<status>   every run                 score sequence                   member id
--   w:<job>:<priority> SCHEDULED                 score run_at                     member sequence (16 digits) .. id
--   p:<job>            priorities in w           score -priority                  member priority
--   x:<job>            RUNNING                   score until (+inf: never)        member id
--   d:<job>            RUNNING, seen to lapse    score -priority                  member run_at (15), sequence (16), id
--   e:<job>            ended                     score ended                      member sequence (16), letter, id
-- What is in d is no longer in x; a claim moves it. f: the run's fields.
local function job_of(id)
  return string.match(id, "^[^:]*")
end

local function place_lapsed(id, f)
  return string.format("%015.0f%016.0f", f.run_at, f.sequence) .. id
end

local function place_ended(id, f)
  return string.format("%016.0f%s", f.sequence, string.sub(f.status, 1, 1)) .. id
end

local function enter(id, f)
  local job = job_of(id)
  redis.call("ZADD", P .. "l:" .. job .. ":" .. f.status, f.sequence, id)
  if f.status == "scheduled" then
    local priority = f.priority or "0"
    redis.call("ZADD", P .. "w:" .. job .. ":" .. priority, f.run_at, string.format("%016.0f", f.sequence) .. id)
    redis.call("ZADD", P .. "p:" .. job, -priority, priority)
  elseif f.status == "running" then
    redis.call("ZADD", P .. "x:" .. job, f["until"] or "+inf", id)
  else
    redis.call("ZADD", P .. "e:" .. job, f.ended, place_ended(id, f))
  end
end

local function leave(id, f)
  local job = job_of(id)
  redis.call("ZREM", P .. "l:" .. job .. ":" .. f.status, id)
  if f.status == "scheduled" then
    local waiting = string.format("%016.0f", f.sequence) .. id
    redis.call("ZREM", P .. "w:" .. job .. ":" .. (f.priority or "0"), waiting)
  elseif f.status == "running" then
    if redis.call("ZREM", P .. "x:" .. job, id) == 0 then
      redis.call("ZREM", P .. "d:" .. job, place_lapsed(id, f))
    end
    if f.claim then
      redis.call("ZREM", P .. "h:" .. f.claim, id)
    end
  else
    redis.call("ZREM", P .. "e:" .. job, place_ended(id, f))
  end
end
