-- One turn of one worker at one bucket: everything it has to say, and what it may fetch next. All or nothing.
--
-- A job with one bucket commits in a turn too: its name is the job's own, whose keys stand in crew.lua.
-- KEYS[1] is the bucket's name; its keys, all in one slot of a Cluster, are that name and
--   :c        counts: seeded, done, failed, filtered; id, the last request's number; ver, of the facts it needs
--   :n        worker -> how many turns it has had, or "dead": refused from then on
--   :ap       worker -> the last entry of its log that was applied
--   :s:N      fingerprints, in hashes small enough to be stored as one string each
--   :q:P:H    requests of priority P that wait for host H; :p:H its priorities other than 0
--   :h:H      the host's budget: u slots in use, w requests that wait, r ready at, l last request at, p place
--             (1 in :ready, 2 in :timed, 0 in neither), x slots whose request is not known to have gone out; m slots,
--             d delay and j jitter where they are its own; b worker to the slots that it has;
--             k caps: a cause to {0, delay, worker that said so}, cause NUL worker to {slots, 0};
--             c worker whose own request waits for a slot, since t: stored ones make way, also for another worker's
--   :caps:W   hosts of which worker W has capped something that ends with it
--   :ready    hosts that may be asked now, in turns; :timed hosts by the time from which they may
--   :hungry   workers by the last time when less was to be had than they wanted
--   :late     requests that wait for a time of their own
--   :own:W    what worker W has leased; :slot:W the slots it holds
--   :f        requests that failed
-- ARGV[1] is a MessagePack map (https://msgpack.org/); times are microseconds of Redis' own clock.

local base, o = KEYS[1], cmsgpack.unpack(ARGV[1])
local token, depth = o.token, o.depth
local call, pack, unpack_ = redis.call, cmsgpack.pack, cmsgpack.unpack
local now = o.now
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local turns = call('HGET', base .. ':n', token)
if turns == 'dead' then return {'FENCED'} end
turns = tonumber(turns or 0)
if o.commit and not call('ZSCORE', base .. ':alive', token) then
  return {call('HEXISTS', base .. ':who', token) == 1 and 'FENCED' or 'LOST'}
end
if turns < o.seen then return {'LOST'} end  -- Redis has answered more turns than it remembers
turns = turns + 1
call('HSET', base .. ':n', token, turns)

local counts = {seeded = 0, done = 0, failed = 0, filtered = 0}
local function count(name, by) counts[name] = counts[name] + (by or 1) end

local MANY = 1000  -- values that one command takes
local function in_parts(list, size, handle)
  for first = 1, #list, size do handle(first, math.min(first + size - 1, #list)) end
end

-- hosts: read once a turn, written back at its end

local hosts = {}

local function weigh(host)  -- the strictest of its own policy and the caps
  host.m, host.d, host.watch = host.own_m, host.own_d, nil
  for _, cap in pairs(host.caps) do
    if cap[1] > 0 then host.m = math.min(host.m, cap[1]) end
    if cap[2] > host.d then host.d, host.watch = cap[2], cap[3] end
  end
end

local function host_of(name)
  local host = hosts[name]
  if not host then
    local v = call('HMGET', base .. ':h:' .. name, 'u', 'w', 'r', 'l', 'p', 'x', 'm', 'd', 'j', 'k', 'c', 't', 'b')
    host = {u = tonumber(v[1] or 0), w = tonumber(v[2] or 0), r = tonumber(v[3] or 0), l = tonumber(v[4] or 0),
            p = tonumber(v[5] or 0), x = tonumber(v[6] or 0), own_m = tonumber(v[7] or o.slots),
            own_d = tonumber(v[8] or o.delay), j = tonumber(v[9] or o.jitter), caps = v[10] and unpack_(v[10]) or {},
            claim = v[11], claimed = tonumber(v[12] or 0), was_claimed = v[11] and true or false,
            by = v[13] and unpack_(v[13]) or {}, was_held = v[13] and true or false,
            stored = v[1] and true or false, was_own = v[7] and true or false, was_capped = v[10] and true or false}
    weigh(host)
    hosts[name] = host
  end
  return host
end

math.randomseed(o.seed)  -- Redis gives every script the same numbers otherwise
local function least_gap(host) return host.d > 0 and host.d + math.min(o.margin, math.floor(host.d / 10)) or 0 end
local function gap(host)
  return least_gap(host) + (host.d > 0 and host.j > 0 and math.floor(host.d * host.j * math.random()) or 0)
end
local function from_sent(host) return o.tells and host.d > 0 end
local function can_go(host) return host.u < host.m and host.x == 0 and host.r <= now end

local CLAIM = 500000  -- who claims a slot asks for it every 20 ms
local function is_claimed(host) return host.claim and now - host.claimed < CLAIM end

local function went_out(host)  -- at the latest now
  host.x = math.max(0, host.x - 1)
  host.l = now
  host.r = math.max(host.r, now + gap(host))
end

local function put(name, host)
  if host.p == 2 then call('ZREM', base .. ':timed', name) end
  if host.u >= host.m or host.x > 0 then
    host.p = 0
  elseif host.r > now then
    host.p = 2
    call('ZADD', base .. ':timed', string.format('%.0f', host.r), name)
  elseif host.w > 0 and is_claimed(host) then
    host.p = 2
    call('ZADD', base .. ':timed', string.format('%.0f', host.claimed + CLAIM), name)
  elseif host.w > 0 then
    host.p = 1
    call('RPUSH', base .. ':ready', name)
  else
    host.p = 0
  end
end

local new_slots, new_own = {}, {}  -- fields and values, written in few commands at the turn's end

local function go(name, host)  -- takes a slot; returns what is to be stored of it
  local before, ready = host.l, host.r
  host.u = host.u + 1
  host.by[token] = (host.by[token] or 0) + 1
  host.l = now
  if host.d > 0 then
    host.r = math.max(host.r, now + gap(host))
    if from_sent(host) then host.x = host.x + 1 end
  end
  return pack({name, now, before, ready, host.r, 0})
end

local function write_leases()
  in_parts(new_slots, MANY, function(a, b) call('HSET', base .. ':slot:' .. token, unpack(new_slots, a, b)) end)
  in_parts(new_own, MANY, function(a, b) call('HSET', base .. ':own:' .. token, unpack(new_own, a, b)) end)
end

local function sent(slot)
  local data = call('HGET', base .. ':slot:' .. token, slot)
  local v = data and unpack_(data)
  if not v or v[6] == 1 then return end
  v[6] = 1
  call('HSET', base .. ':slot:' .. token, slot, pack(v))
  local host = host_of(v[1])
  went_out(host)
  if host.p ~= 1 then put(v[1], host) end
end

local function free_one(owner, data, unused)
  local v = unpack_(data)
  local host = host_of(v[1])
  host.u = math.max(0, host.u - 1)
  local left = (host.by[owner] or 0) - 1
  host.by[owner] = left > 0 and left or nil
  if unused then
    if v[6] == 0 then host.x = math.max(0, host.x - 1) end
    if host.l == v[2] and host.r == v[5] then host.l, host.r = v[3], v[4] end
  elseif v[6] == 0 and host.x > 0 then
    went_out(host)
  elseif o.tells and host.d == 0 then
    host.l = now  -- when it went out was not told: should a delay come now, it counts from here
  end
  host.x = math.min(host.x, host.u)
  if host.p ~= 1 then put(v[1], host) end
end

local function free(owner, slots, unused)
  local key = base .. ':slot:' .. owner
  in_parts(slots, MANY, function(a, b)
    local held = call('HMGET', key, unpack(slots, a, b))
    call('HDEL', key, unpack(slots, a, b))
    for i, data in ipairs(held) do
      if data then free_one(owner, data, unused[a + i - 1]) end
    end
  end)
end

local function change(name, host)  -- its policy or its caps were changed
  local former = host.d
  weigh(host)
  if host.d > former then
    if host.l > 0 then host.r = math.max(host.r, host.l + least_gap(host)) end
    if former == 0 and o.tells then host.x = host.u end  -- whether these have gone out was not told so far
  elseif host.d == 0 and host.x > 0 then
    host.x, host.l = 0, now
  end
  if host.p ~= 1 then put(name, host) end
end

local function write_hosts()
  for name, host in pairs(hosts) do
    local own = host.own_m ~= o.slots or host.own_d ~= o.delay or host.j ~= o.jitter
    local capped = next(host.caps) ~= nil
    if host.u == 0 and host.w == 0 and host.r <= now and host.p == 0 and not own and not capped
       and not is_claimed(host) then
      if host.stored then call('DEL', base .. ':h:' .. name) end
    else
      call('HSET', base .. ':h:' .. name, 'u', host.u, 'w', host.w, 'r', string.format('%.0f', host.r),
           'l', string.format('%.0f', host.l), 'p', host.p, 'x', host.x)
      if next(host.by) then call('HSET', base .. ':h:' .. name, 'b', pack(host.by))
      elseif host.was_held then call('HDEL', base .. ':h:' .. name, 'b') end
      if own then
        call('HSET', base .. ':h:' .. name, 'm', host.own_m, 'd', string.format('%.0f', host.own_d), 'j', tostring(host.j))
      elseif host.was_own then
        call('HDEL', base .. ':h:' .. name, 'm', 'd', 'j')
      end
      if host.claim then call('HSET', base .. ':h:' .. name, 'c', host.claim, 't', string.format('%.0f', host.claimed))
      elseif host.was_claimed then call('HDEL', base .. ':h:' .. name, 'c', 't') end
      if capped then call('HSET', base .. ':h:' .. name, 'k', pack(host.caps))
      elseif host.was_capped then call('HDEL', base .. ':h:' .. name, 'k') end
    end
  end
end

-- requests that wait

local function queue(name, priority) return base .. ':q:' .. string.format('%d', priority) .. ':' .. name end

local function add(name, priority, data, first)
  local host = host_of(name)
  local at_end = depth or not first  -- what is to go first stands where the next one is taken from
  call(at_end and 'RPUSH' or 'LPUSH', queue(name, priority), data)
  if priority ~= 0 then call('ZADD', base .. ':p:' .. name, priority, priority) end
  host.w = host.w + 1
  if host.p == 0 then put(name, host) end
end

local function next_of(name, host, n)  -- up to n requests, all of one priority
  host.top = host.top or tonumber(call('ZREVRANGE', base .. ':p:' .. name, 0, 0)[1] or 0)
  local take = depth and 'RPOP' or 'LPOP'
  if host.top <= 0 then
    local found = call(take, queue(name, 0), n)
    if found then return found, 0 end
  end
  local top = host.top
  local found = call(take, queue(name, top), n) or {}
  if call('EXISTS', queue(name, top)) == 0 then
    call('ZREM', base .. ':p:' .. name, top)
    host.top = nil
  end
  return found, top
end

local function wait(name, priority, delay, data)
  if delay > 0 then
    local id = call('HINCRBY', base .. ':c', 'id', 1)
    call('ZADD', base .. ':late', string.format('%.0f', now + delay), pack({id, name, priority, data}))
  else
    add(name, priority, data, false)
  end
end

local function is_new(mark)
  local shard = math.floor((mark:byte(1) * 256 + mark:byte(2)) / o.buckets)
  return call('HSETNX', base .. ':s:' .. shard, mark:sub(2), '') == 1
end

-- pushes: six values each. Modes: 0 unless seen, 1 in any case, 2 in another's place unless seen, 3 in another's place
local function push(list)
  for i = 1, #list, 6 do
    local mode, mark, name, priority, delay, data = unpack(list, i, i + 5)
    local new = is_new(mark)
    if new or mode == 1 or mode == 3 then
      if mode < 2 then count('seeded') end
      wait(name, priority, delay, data)
    else
      count('filtered')
      if mode == 2 then count('done') end
    end
  end
end

-- what a worker's log says became of its leases; each entry once, whoever brings it

local function apply(owner, entries)
  local last = tonumber(call('HGET', base .. ':ap', owner) or 0)
  for _, entry in ipairs(entries) do
    local number, ends, pushes, version = entry[1], entry[2], entry[3], entry[4]
    if number > last then
      local done = {}
      for i = 1, #ends, 4 do
        local id, kind = ends[i], ends[i + 1]
        if kind == 1 then
          done[#done + 1] = id
        elseif call('HDEL', base .. ':own:' .. owner, id) == 1 and kind == 2 then
          count('failed')
          call('HSET', base .. ':f', id, pack({ends[i + 2], ends[i + 3]}))
        end
      end
      in_parts(done, MANY, function(a, b) count('done', call('HDEL', base .. ':own:' .. owner, unpack(done, a, b))) end)
      push(pushes)
      if version > 0 then call('HSET', base .. ':c', 'ver', version) end
      call('HSET', base .. ':ap', owner, number)
      last = number
    end
  end
end

local function set(list)
  local found = {}
  for _, value in ipairs(list) do found[string.format('%.0f', value)] = true end
  return found
end

local function give_back(owner, id, data)  -- a lease, to where it was taken from
  call('HDEL', base .. ':own:' .. owner, id)
  local v = unpack_(data)
  add(v[1], v[2], v[3], true)
end

local function take_back(owner, kept, slots)
  local loose = {}
  for _, slot in ipairs(call('HKEYS', base .. ':slot:' .. owner)) do
    if not slots[slot] then loose[#loose + 1] = slot end
  end
  free(owner, loose, {})
  local own = call('HGETALL', base .. ':own:' .. owner)
  for i = 1, #own, 2 do
    if not kept[own[i]] then give_back(owner, own[i], own[i + 1]) end
  end
end

local function outlives(cause) return cause:find('://', 1, true) end  -- a robots.txt's gap its reader: its cause is an origin

local function lift_caps(owner)
  for _, name in ipairs(call('SMEMBERS', base .. ':caps:' .. owner)) do
    local host = host_of(name)
    for cause, cap in pairs(host.caps) do
      if cause:sub(-#owner - 1) == '\0' .. owner or (cap[3] == owner and not outlives(cause)) then
        host.caps[cause] = nil
      end
    end
    change(name, host)
  end
  call('DEL', base .. ':caps:' .. owner)
end

for _, slot in ipairs(o.sent) do sent(string.format('%.0f', slot)) end
for i = 1, #o.hosts, 4 do
  local name = o.hosts[i]
  local host = host_of(name)
  host.own_m, host.own_d, host.j = o.hosts[i + 1], o.hosts[i + 2], o.hosts[i + 3]
  change(name, host)
end
if o.kept then take_back(token, set(o.kept), set(o.kept_slots)) end
if #o.free > 0 then
  local slots, unused = {}, {}
  for i = 1, #o.free, 2 do
    slots[#slots + 1], unused[#unused + 1] = string.format('%.0f', o.free[i]), o.free[i + 1]
  end
  free(token, slots, unused)
end
for i = 1, #o.tune, 5 do
  local name, slots, delay, pause, cause = unpack(o.tune, i, i + 4)
  local host = host_of(name)
  if cause == '' then
    if slots >= 0 then host.own_m = math.max(1, slots) end
    if delay >= 0 then host.own_d = delay end
  else
    if slots >= 0 then host.caps[cause .. '\0' .. token] = slots > 0 and {slots, 0} or nil end
    if slots > 0 or (delay > 0 and not outlives(cause)) then call('SADD', base .. ':caps:' .. token, name) end
    if delay >= 0 then host.caps[cause] = delay > 0 and {0, delay, token} or nil end
  end
  if pause > 0 then host.r = math.max(host.r, now + pause) end
  change(name, host)
end
for i = #o.back, 1, -1 do  -- the first of them to the front
  local id = string.format('%.0f', o.back[i])
  local data = call('HGET', base .. ':own:' .. token, id)
  if data then give_back(token, id, data) end
end
count('filtered', o.filtered)
push(o.push)
apply(o.heir or token, o.log)
if o.commit then
  local version = note_commit(base, token, o.commit)
  apply(token, {{2 * o.commit.number + 1, o.commit.ends, o.commit.pushes, o.commit.needed * version}})
end
if o.bury and call('HGET', base .. ':n', o.bury) ~= 'dead' then
  apply(o.bury, o.bury_log)
  take_back(o.bury, {}, {})
  lift_caps(o.bury)
  call('ZREM', base .. ':hungry', o.bury)
  call('HSET', base .. ':n', o.bury, 'dead')
end
if o.again then
  local failed = call('HGETALL', base .. ':f')
  for i = 2, #failed, 2 do
    local v = unpack_(failed[i])
    counts.failed = counts.failed - 1
    local where = v[2]
    add(where[1], where[2], where[3], false)
  end
  call('DEL', base .. ':f')
end

local due = call('ZRANGEBYSCORE', base .. ':late', '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)
for _, data in ipairs(due) do
  call('ZREM', base .. ':late', data)
  local v = unpack_(data)
  add(v[2], v[3], v[4], false)
end
local ripe = call('ZRANGEBYSCORE', base .. ':timed', '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)
for _, name in ipairs(ripe) do
  local host = host_of(name)
  host.p = 2
  put(name, host)
end

local granted, later = {}, {}
for i = 1, #o.want, 2 do
  local slot, name = o.want[i], o.want[i + 1]
  local host = host_of(name)
  if call('HEXISTS', base .. ':slot:' .. token, string.format('%.0f', slot)) == 1 then
    granted[#granted + 1] = slot  -- by a turn whose answer was lost
    granted[#granted + 1] = from_sent(host) and 1 or 0
  elseif can_go(host) then
    if #granted < 2 * o.want_max then
      if host.claim == token then host.claim = nil end
      new_slots[#new_slots + 1], new_slots[#new_slots + 2] = string.format('%.0f', slot), go(name, host)
      if host.p ~= 1 then put(name, host) end
      granted[#granted + 1] = slot
      granted[#granted + 1] = from_sent(host) and 1 or 0
    end
  elseif host.u < host.m and host.x == 0 then
    later[#later + 1] = host.r
  elseif not is_claimed(host) or host.claim == token then
    host.claim, host.claimed = token, now
  end
end

-- Hosts take turns: with one request each as long as there are several, and back to the end of the line.
local taken = {}
local n = o.lease - #granted / 2
-- Where others want more than there is, a worker takes no more of a host's slots than is its share: it is here most often
-- that has most of them, and would always be the one to find those free that it gives back.
local HUNGRY = 300000  -- who gets less than it wants asks every 200 ms
local function is_hungry(worker) return tonumber(call('ZSCORE', base .. ':hungry', worker) or 0) >= now - HUNGRY end
local others = 0
if n > 0 then
  others = call('ZCOUNT', base .. ':hungry', string.format('%.0f', now - HUNGRY), '+inf')
  if others > 0 and is_hungry(token) then others = others - 1 end
end
local function share(host)  -- how many more it may take
  return others > 0 and math.ceil(host.m / (1 + others)) - (host.by[token] or 0) or n
end
-- A host with a gap is left to the worker that put it, while that wants more: only its throttle, which sees the host's
-- answers, takes the gap back.
local function is_watched(host)
  return others > 0 and host.watch and host.watch ~= token and is_hungry(host.watch)
end
local restrained = {}
local function take(name, host, most)
  local found, priority = next_of(name, host, most)
  for _, data in ipairs(found) do
    taken[#taken + 1] = {name, priority, data, from_sent(host) and 1 or 0, go(name, host)}
  end
  host.w, n = host.w - math.max(1, #found), n - #found
  return #found > 0
end

while n > 0 do
  local names = call('LPOP', base .. ':ready', n)
  if not names then break end
  for _, name in ipairs(names) do host_of(name).p = 0 end
  while n > 0 and #names > 0 do
    local still = {}
    for _, name in ipairs(names) do
      local host = host_of(name)
      local may = n > 0 and host.w > 0 and can_go(host)
      local most = (#names > 1 or host.d > 0) and 1 or math.min(n, host.w, host.m - host.u)
      if may and (share(host) <= 0 or is_watched(host)) then restrained[#restrained + 1] = name
      elseif may and take(name, host, math.min(most, share(host))) then still[#still + 1] = name
      else put(name, host) end
    end
    names = still
  end
  for _, name in ipairs(names) do put(name, host_of(name)) end
end
for _, name in ipairs(restrained) do put(name, host_of(name)) end
if n > 0 then call('ZADD', base .. ':hungry', string.format('%.0f', now), token)
elseif o.lease > 0 then call('ZREM', base .. ':hungry', token) end

-- Requests that follow on the slots just granted, where more wait than there are slots: see Grants.
local FOLLOW = 4  -- a slot's, before it is up to all workers again
local FOLLOWS = 2  -- in place of whether the gap counts from the worker's word: it has no slot of its own
if o.ahead > 0 and #taken > 0 then
  local names, slots = {}, {}
  for _, v in ipairs(taken) do
    if not slots[v[1]] then names[#names + 1] = v[1] end
    slots[v[1]] = (slots[v[1]] or 0) + 1
  end
  local ahead = o.ahead
  for _, name in ipairs(names) do
    local host = host_of(name)
    local most = math.min(ahead, FOLLOW * slots[name], host.w - math.max(0, host.m - host.u))
    if most > 0 and host.d == 0 and not is_claimed(host) then
      local found, priority = next_of(name, host, most)
      for _, data in ipairs(found) do taken[#taken + 1] = {name, priority, data, FOLLOWS} end
      host.w, ahead = host.w - #found, ahead - #found
    end
  end
end
local halted = {}
for _, name in ipairs(o.follow) do
  local was_read = hosts[name]
  local host = host_of(name)
  hosts[name] = was_read  -- or it would be written back
  if host.d > 0 or host.r > now or host.u > host.m or is_claimed(host) then halted[#halted + 1] = name end
end

local leases = {}
if #taken > 0 then
  local id = call('HINCRBY', base .. ':c', 'id', #taken) - #taken
  for _, v in ipairs(taken) do
    id = id + 1
    new_own[#new_own + 1], new_own[#new_own + 2] = id, pack({v[1], v[2], v[3]})
    if v[5] then new_slots[#new_slots + 1], new_slots[#new_slots + 2] = string.format('%d', id), v[5] end
    leases[#leases + 1], leases[#leases + 2], leases[#leases + 3] = id, v[4], v[3]
  end
end

write_leases()
write_hosts()
for name, by in pairs(counts) do
  if by ~= 0 then call('HINCRBY', base .. ':c', name, by) end
end
local next_at = 0
if call('LLEN', base .. ':ready') > #restrained then
  next_at = now
else
  for _, key in ipairs({':timed', ':late'}) do
    local first = call('ZRANGE', base .. key, 0, 0, 'WITHSCORES')[2]
    if first and (next_at == 0 or tonumber(first) < next_at) then next_at = tonumber(first) end
  end
end
local sums = call('HMGET', base .. ':c', 'seeded', 'done', 'failed', 'filtered', 'ver')
for i = 1, 5 do sums[i] = tonumber(sums[i] or 0) end
return {'OK', turns, now, next_at, sums, granted, later, leases, o.commit and tally_of(base) or {}, halted}
