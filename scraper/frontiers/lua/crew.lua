-- Who works on a job and what each has committed. KEYS[1] is the job's name; its keys, all in one slot of a Cluster:
--   :job      asked, as JSON, and by whom last, at which time; buckets; starts taken, over, starter; ver, of the facts;
--             beat, grace; pages, items, errors of all workers
--   :n        worker -> how many times it has been answered, or "dead"
--   :alive    workers by the time of their last heartbeat; :dead those whose leases are to be taken back
--   :who      worker -> what it says of itself; :pos how far its outputs reach; :own its own state
--   :facts    what any of them found out and all need: robots.txt files, start hosts
--   :seq      worker -> its last commit; :log:W the commits of W that may not have been applied everywhere
-- ARGV: the operation, the worker, how often it has heard an answer (-1: it hears none), the time or "", and the operation's own.

local base, op, token, seen, now = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local call = redis.call
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

if op == 'buried' then
  call('SREM', base .. ':dead', ARGV[5])
  call('DEL', base .. ':log:' .. ARGV[5])
  return {'OK', 0}
end
if op == 'enlist' then  -- what is asked, by whom; what came to nothing if nobody is at work, or ""; the others' patience
  local job = base .. ':job'
  local held = call('HGET', job, 'asked')
  local since = string.format('%.0f', now - ARGV[8])
  if not held or (held == ARGV[7] and call('ZCOUNT', base .. ':alive', since, '+inf') == 0) then
    held = ARGV[5]
    call('HSET', job, 'asked', held)
  end
  if held == ARGV[5] then call('HSET', job, 'by', ARGV[6], 'at', string.format('%.0f', now)) end
  return {'OK', 0, held}
end
if op == 'join' then
  call('HSET', base .. ':who', token, ARGV[5])
  call('ZADD', base .. ':alive', string.format('%.0f', now), token)
end
if not call('ZSCORE', base .. ':alive', token) then
  return {call('HEXISTS', base .. ':who', token) == 1 and 'FENCED' or 'LOST'}
end
local turns = call('HGET', base .. ':n', token)
if turns == 'dead' then return {'FENCED'} end
turns = tonumber(turns or 0)
if turns < seen then return {'LOST'} end
if seen >= 0 then  -- or nobody hears the answer: it would make up for one that Redis has forgotten
  turns = turns + 1
  call('HSET', base .. ':n', token, turns)
end

local function bury(name)
  call('ZREM', base .. ':alive', name)
  call('SADD', base .. ':dead', name)
  if call('HGET', base .. ':job', 'starter') == name then call('HDEL', base .. ':job', 'starter') end
end

local function facts() return {tonumber(call('HGET', base .. ':job', 'ver') or 0), call('HGETALL', base .. ':facts')} end

if op == 'facts' then return {'OK', turns, facts()} end

if op == 'join' then
  local others = {}
  for _, name in ipairs(call('ZRANGE', base .. ':alive', 0, -1)) do
    if name ~= token then others[#others + 1] = {name, call('HGET', base .. ':who', name)} end
  end
  return {'OK', turns, facts(), tally_of(base), others}
end

if op == 'bury' then
  bury(ARGV[5])
  return {'OK', turns, call('HGETALL', base .. ':log:' .. ARGV[5])}
end

if op == 'beat' then
  -- Where nobody was heard for a while it was Redis that was away: all get the time to say that they live.
  local patience = tonumber(ARGV[5])
  local v = call('HMGET', base .. ':job', 'beat', 'grace')
  local grace = tonumber(v[2] or 0)
  if now - tonumber(v[1] or 0) > patience / 2 then
    grace = now + patience
    call('HSET', base .. ':job', 'grace', string.format('%.0f', grace))
  end
  call('HSET', base .. ':job', 'beat', string.format('%.0f', now))
  call('ZADD', base .. ':alive', string.format('%.0f', now), token)
  if now >= grace then
    for _, name in ipairs(call('ZRANGEBYSCORE', base .. ':alive', '-inf', string.format('%.0f', now - patience))) do
      bury(name)
    end
  end
  local logs = {}
  for _, name in ipairs(call('SMEMBERS', base .. ':dead')) do
    logs[#logs + 1] = {name, call('HGETALL', base .. ':log:' .. name)}
  end
  return {'OK', turns, tonumber(call('HGET', base .. ':job', 'ver') or 0), logs, tally_of(base)}
end

if op == 'start' then
  local v = call('HMGET', base .. ':job', 'over', 'starter', 'starts')
  if v[1] then return {'OK', turns, -1} end
  if v[2] and v[2] ~= token then return {'OK', turns, -2} end
  call('HSET', base .. ':job', 'starter', token)
  return {'OK', turns, tonumber(v[3] or 0)}
end

if op == 'commit' then return {'OK', turns, note_commit(base, token, cmsgpack.unpack(ARGV[5])), tally_of(base)} end

if op == 'over' then
  call('HSET', base .. ':job', 'over', '1')
  return {'OK', turns}
end

if op == 'leave' then
  bury(token)
  return {'OK', turns, call('HGETALL', base .. ':log:' .. token)}
end
