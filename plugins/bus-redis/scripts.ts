/**
 * What the server does in one step each, in its Lua (redis.io/docs/latest/develop/programmability/eval-intro).
 * KEYS[1] is the root of all names:
 *
 * - `ROOT:messages`: stream of the kept messages at `POSITION-0`: their topic, and in JSON what is `about` them.
 * - `ROOT:payloads`: hash of their payloads by position: who looks for a topic loads none that it does not want.
 * - `ROOT:topic:TOPIC`: sorted set of the positions of one topic; `ROOT:topics`: set of the topics with messages;
 *   `ROOT:level:NUMBER:LEVEL`: set of those that have this level there, of which the first is 1.
 * - `ROOT:state`: hash of the `last` position given out, the kept `bytes`, and the clock.
 * - `ROOT:groups`: sorted set of the groups by when they were last without members; while they have some, that
 *   is a time to come.
 * - `ROOT:group:GROUP`: hash with `born`, which tells a group from a later one of its name, `cursor`, behind which
 *   it has seen nothing, and for each position that was delivered and is not settled the number of attempts:
 *   negative while it waits for its next delivery.
 * - `ROOT:due:GROUP`: sorted set of those positions by when they are to be delivered again.
 *
 * All readers are told what happens on the channel `ROOT`, in the order in which it happened.
 */
const PRELUDE = `
local root = KEYS[1]
local messages, payloads, state, groups = root .. ':messages', root .. ':payloads', root .. ':state', root .. ':groups'
local function group_of(name) return root .. ':group:' .. name, root .. ':due:' .. name end
local function text(number) return string.format('%.0f', number) end
local function tell(...) redis.call('PUBLISH', root, cjson.encode({...})) end
local function last() return redis.call('HGET', state, 'last') or '0' end

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Milliseconds by a clock that goes on where it was when the server's is set back: no delay becomes longer.
local function now()
  local known = redis.call('HMGET', state, 'clock', 'clock_offset')
  local clock, offset = tonumber(known[1] or 0), tonumber(known[2] or 0)
  local time = microseconds() / 1000 + offset
  if time >= clock then return time end
  redis.call('HSET', state, 'clock_offset', string.format('%.3f', offset + clock - time))
  return clock
end
local function remember(time) redis.call('HSET', state, 'clock', string.format('%.3f', time)) end

-- A pattern is "=" and a topic, or one of Lua's for a topic with a slash behind it.
local function fits(topic, pattern)
  if pattern:sub(1, 1) == '=' then return topic == pattern:sub(2) end
  return string.find(topic .. '/', pattern) ~= nil
end
local function positions_of(topic) return root .. ':topic:' .. topic end

-- SADD or SREM: the topic in the sets of its levels.
local function list(command, topic)
  redis.call(command, root .. ':topics', topic)
  local number = 0
  for level in string.gmatch(topic, '[^/]+') do
    number = number + 1
    redis.call(command, root .. ':level:' .. number .. ':' .. level, topic)
  end
end

local function remove(position, topic)
  local bytes = #topic + redis.call('HSTRLEN', payloads, position)
  redis.call('XDEL', messages, position .. '-0')
  redis.call('HDEL', payloads, position)
  redis.call('ZREM', positions_of(topic), position)
  if redis.call('EXISTS', positions_of(topic)) == 0 then list('SREM', topic) end
  return redis.call('HINCRBY', state, 'bytes', -bytes)
end

local function forget(name)
  local group, due = group_of(name)
  local born = redis.call('HGET', group, 'born')
  redis.call('DEL', group, due)
  redis.call('ZREM', groups, name)
  if born then tell('removed', name, born) end
end

local function entries_of(topic, cursor, upto, count)
  local positions = redis.call('ZRANGEBYSCORE', positions_of(topic), '(' .. cursor, upto, 'LIMIT', 0, count)
  for index, position in ipairs(positions) do
    positions[index] = redis.call('XRANGE', messages, position, position)[1]
  end
  return positions
end

-- Calls take for what fits behind a position until it answers false, or until it has looked at enough.
-- Answers how far it came, and whether there may be more.
local function scan(cursor, upto, pattern, take)
  local topic = pattern:match('^=(.*)')
  local count, left = 4, 1000
  while left > 0 do
    local entries = topic and entries_of(topic, cursor, upto, count)
      or redis.call('XRANGE', messages, '(' .. cursor .. '-0', upto, 'COUNT', count)
    for _, entry in ipairs(entries) do
      cursor = entry[1]:sub(1, -3)
      local is_wanted = topic or fits(entry[2][2], pattern)
      if is_wanted and not take(cursor, entry[2][2], entry[2][4]) then return cursor, true end
    end
    if #entries < count then return cursor, false end
    left = left - count
    count = math.min(count * 4, 256)
  end
  return cursor, true
end
`;

/** topic, about, payload, most messages, most bytes. Answers the position. */
const PUBLISH = `
local topic, payload, most, most_bytes = ARGV[1], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local position = text(math.max(last() + 1, microseconds()))
redis.call('XADD', messages, position .. '-0', 'topic', topic, 'about', ARGV[2])
redis.call('HSET', payloads, position, payload)
if redis.call('ZADD', positions_of(topic), position, position) == 1 and redis.call('ZCARD', positions_of(topic)) == 1 then
  list('SADD', topic)
end
redis.call('HSET', state, 'last', position)
local bytes = redis.call('HINCRBY', state, 'bytes', #topic + #payload)
local count = redis.call('XLEN', messages)
-- Not all at once where the limits have become much lower; and the newest stays.
for _ = 1, math.min(count - 1, 1000) do
  if count <= most and bytes <= most_bytes then break end
  local oldest = redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1]
  bytes = remove(oldest[1]:sub(1, -3), oldest[2][2])
  count = count - 1
end
tell('kept', position, topic)
return position
`;

/** topic, about, payload. */
const PASS = `
redis.call('PUBLISH', root, cjson.encode({'passing', last(), ARGV[1], ARGV[2]}) .. '\\n' .. ARGV[3])
`;

/** name. Told to the reader of that name, in its turn. */
const BEGIN = `tell('begun', ARGV[1], last())`;

/** after, up to, pattern, most messages, most bytes. Answers where it stopped, or nil at the end; and messages. */
const READ = `
local most, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local found = {false}
local cursor, more = scan(ARGV[1], ARGV[2], ARGV[3], function(position, topic, about)
  local payload = redis.call('HGET', payloads, position) or ''
  found[#found + 1] = {position, topic, about, payload}
  most, most_bytes = most - 1, most_bytes - #payload
  return most > 0 and most_bytes > 0
end)
if more then found[1] = cursor end
return found
`;

/** group, after or nothing, born, most groups, lease. Answers when it was born. */
const JOIN = `
local name, after, time = ARGV[1], ARGV[2], now()
local group = group_of(name)
if redis.call('EXISTS', group) == 0 then
  while redis.call('ZCARD', groups) >= tonumber(ARGV[4]) do
    local idle = redis.call('ZRANGEBYSCORE', groups, '-inf', time, 'LIMIT', 0, 1)[1]
    if not idle then break end
    forget(idle)
  end
  if after == '' then after = last() end
  -- From a clock that was ahead of this one's: everything is news.
  if tonumber(after) > tonumber(last()) then after = '0' end
  redis.call('HSET', group, 'born', ARGV[3], 'cursor', after)
end
redis.call('ZADD', groups, time + ARGV[5], name)
remember(time)
return redis.call('HGET', group, 'born')
`;

/** lease, groups. They have members for so long from now on, or none at 0. */
const LEASE = `
local time = now()
for index = 2, #ARGV do redis.call('ZADD', groups, 'XX', time + ARGV[1], ARGV[index]) end
remember(time)
`;

/**
 * group, born, pattern, most bytes, and for each that is wanted how long its member may take. Nil when the group is
 * gone; else 1 when there may be more, milliseconds until the next is due or -1, and the deliveries.
 */
const CLAIM = `
local name, most_bytes, wanted = ARGV[1], tonumber(ARGV[4]), #ARGV - 4
local group, due = group_of(name)
local known = redis.call('HMGET', group, 'born', 'cursor')
if known[1] ~= ARGV[2] then return false end
local time, found = now(), {}
local function take(position, topic, about, attempt)
  local payload = redis.call('HGET', payloads, position) or ''
  redis.call('HSET', group, position, attempt or 1)
  redis.call('ZADD', due, time + math.max(1, ARGV[5 + #found]), position)
  found[#found + 1] = {position, topic, about, payload, attempt or 1}
  most_bytes = most_bytes - #payload
  return #found < wanted and most_bytes > 0
end
local has_room, more = true, true
while has_room do
  local again = redis.call('ZRANGEBYSCORE', due, '-inf', time, 'LIMIT', 0, wanted)
  if #again == 0 then break end
  for _, position in ipairs(again) do
    local entry = redis.call('XRANGE', messages, position, position)[1]
    if not entry then
      redis.call('HDEL', group, position)
      redis.call('ZREM', due, position)
    elseif has_room then
      has_room = take(position, entry[2][2], entry[2][4], math.abs(redis.call('HGET', group, position)) + 1)
    end
  end
end
if has_room then
  local cursor
  cursor, more = scan(known[2], '9999999999999999', ARGV[3], take)
  if cursor ~= known[2] then redis.call('HSET', group, 'cursor', cursor) end
end
if #found > 0 then remember(time) end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return {more and 1 or 0, first[1] and math.max(0, math.ceil(first[2] - time)) or -1, unpack(found)}
`;

/** group, born, position, attempt. Another member that has it meanwhile is told. */
const ACK = `
local group, due = group_of(ARGV[1])
local known = redis.call('HMGET', group, 'born', ARGV[3])
if known[1] ~= ARGV[2] or not known[2] then return end
redis.call('HDEL', group, ARGV[3])
redis.call('ZREM', due, ARGV[3])
if known[2] ~= ARGV[4] then tell('settled', ARGV[1], ARGV[3]) end
`;

/** group, born, delay, and for each: position, attempt, what becomes of that. For those that nobody else has got. */
const GIVE_BACK = `
local name, time = ARGV[1], now()
local group, due = group_of(name)
if redis.call('HGET', group, 'born') ~= ARGV[2] then return end
for index = 4, #ARGV, 3 do
  local position = ARGV[index]
  if redis.call('HGET', group, position) == ARGV[index + 1] then
    redis.call('HSET', group, position, ARGV[index + 2])
    redis.call('ZADD', due, time + ARGV[3], position)
  end
end
remember(time)
-- What was dropped meanwhile is not delivered again, however long its delay.
if redis.call('ZCARD', due) > redis.call('XLEN', messages) then
  for _, position in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    local waits = tonumber(redis.call('HGET', group, position)) <= 0
    if waits and #redis.call('XRANGE', messages, position, position) == 0 then
      redis.call('HDEL', group, position)
      redis.call('ZREM', due, position)
    end
  end
end
tell('due', name)
`;

/** group. */
const REMOVE_GROUP = `forget(ARGV[1])`;

/** pattern, and the levels that it names, as `NUMBER:LEVEL`. */
const DROP = `
local pattern = ARGV[1]
local few, count = root .. ':topics', redis.call('SCARD', root .. ':topics')
for index = 2, #ARGV do
  local set = root .. ':level:' .. ARGV[index]
  local size = redis.call('SCARD', set)
  if size < count then few, count = set, size end
end
for _, topic in ipairs(redis.call('SMEMBERS', few)) do
  if fits(topic, pattern) then
    for _, position in ipairs(redis.call('ZRANGE', positions_of(topic), 0, -1)) do remove(position, topic) end
  end
end
for _, name in ipairs(redis.call('ZRANGE', groups, 0, -1)) do
  if fits(cjson.decode(name)[1], pattern) then forget(name) end
end
`;

export const scripts = {
  publish: PRELUDE + PUBLISH,
  pass: PRELUDE + PASS,
  begin: PRELUDE + BEGIN,
  read: PRELUDE + READ,
  join: PRELUDE + JOIN,
  lease: PRELUDE + LEASE,
  claim: PRELUDE + CLAIM,
  ack: PRELUDE + ACK,
  giveBack: PRELUDE + GIVE_BACK,
  removeGroup: PRELUDE + REMOVE_GROUP,
  drop: PRELUDE + DROP,
};
