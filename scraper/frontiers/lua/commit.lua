-- Notes what a worker has committed; once, however often it says so. For both scripts, which this stands before.
-- ``c``: number, entry (of its log, where the job has several buckets), applied (the entry before, which has been),
-- outputs, own, starts, needed, facts (names and values), tally (pages, items and errors since the last one).

local function note_commit(base, token, c)
  local call, job = redis.call, base .. ':job'
  if c.number > tonumber(call('HGET', base .. ':seq', token) or 0) then
    call('HSET', base .. ':seq', token, c.number)
    if c.entry ~= '' then call('HSET', base .. ':log:' .. token, c.number, c.entry) end
    if c.applied > 0 then call('HDEL', base .. ':log:' .. token, c.applied) end
    call('HSET', base .. ':pos', token, c.outputs)
    call('HSET', base .. ':own', token, c.own)
    if c.starts >= 0 then call('HSET', job, 'starts', c.starts) end
    for i = 1, #c.facts, 2 do
      if c.facts[i + 1] ~= '' then call('HSET', base .. ':facts', c.facts[i], c.facts[i + 1])
      else call('HDEL', base .. ':facts', c.facts[i]) end
    end
    for i, name in ipairs({'pages', 'items', 'errors'}) do
      if c.tally[i] ~= 0 then call('HINCRBY', job, name, c.tally[i]) end
    end
    if c.needed == 1 then call('HINCRBY', job, 'ver', 1) end
  end
  return tonumber(call('HGET', job, 'ver') or 0)
end

local function tally_of(base)
  local v = redis.call('HMGET', base .. ':job', 'pages', 'items', 'errors')
  return {tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or 0)}
end
