/**
 * The Lua scripts that the server runs, each as one atomic step
 * (redis.io/docs/latest/develop/programmability/eval-intro). KEYS[1] is the prefix of all keys, ROOT:
 *
 * - `ROOT:messages`: stream of the kept messages at `POSITION-0`, with their topic and their metadata (`about`, JSON).
 * - `ROOT:payloads`: hash of the payloads by position, so that a search by topic loads no other payloads.
 * - `ROOT:topic:TOPIC`: sorted set of the positions of a topic. `ROOT:topics`: set of the topics with messages.
 *   `ROOT:level:NUMBER:LEVEL`: set of the topics with this level at this place, counted from 1.
 * - `ROOT:state`: hash with the `last` position, the `bytes` of all kept messages, and the clock.
 * - `ROOT:groups`: sorted set of the consumer groups by the time since which they have no members; in the future
 *   while they have some.
 * - `ROOT:group:GROUP`: hash with `born`, the group's id, which a later group of the same name does not share; with
 *   `cursor`, the position behind which it has delivered nothing; and for each position that was delivered and not
 *   acknowledged the number of attempts, negative while it waits for redelivery.
 * - `ROOT:due:GROUP`: sorted set of those positions by the time of their redelivery.
 *
 * The scripts publish what happens on the channel ROOT, in the order in which it happens.
 */
const PRELUDE = `
local root = KEYS[1]
local messages, payloads, state, groups = root .. ':messages', root .. ':payloads', root .. ':state', root .. ':groups'
local function group_keys(name) return root .. ':group:' .. name, root .. ':due:' .. name end
local function integer(number) return string.format('%.0f', number) end
local function notify(...) redis.call('PUBLISH', root, cjson.encode({...})) end
local function last_position() return redis.call('HGET', state, 'last') or '0' end

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Milliseconds of a clock that never goes back: when the server's is set back, no delay becomes longer.
local function now()
  local known = redis.call('HMGET', state, 'clock', 'clock_offset')
  local clock, offset = tonumber(known[1] or 0), tonumber(known[2] or 0)
  local time = microseconds() / 1000 + offset
  if time >= clock then return time end
  redis.call('HSET', state, 'clock_offset', string.format('%.3f', offset + clock - time))
  return clock
end
local function save_clock(time) redis.call('HSET', state, 'clock', string.format('%.3f', time)) end

-- A pattern is "=" and a topic, or a Lua pattern for a topic with a slash behind it.
local function matches(topic, pattern)
  if pattern:sub(1, 1) == '=' then return topic == pattern:sub(2) end
  return string.find(topic .. '/', pattern) ~= nil
end
local function positions_of(topic) return root .. ':topic:' .. topic end

-- Adds a topic to the sets of its levels (SADD), or removes it (SREM).
local function update_index(command, topic)
  redis.call(command, root .. ':topics', topic)
  local number = 0
  for level in string.gmatch(topic, '[^/]+') do
    number = number + 1
    redis.call(command, root .. ':level:' .. number .. ':' .. level, topic)
  end
end

local function remove_message(position, topic)
  local bytes = #topic + redis.call('HSTRLEN', payloads, position)
  redis.call('XDEL', messages, position .. '-0')
  redis.call('HDEL', payloads, position)
  redis.call('ZREM', positions_of(topic), position)
  if redis.call('EXISTS', positions_of(topic)) == 0 then update_index('SREM', topic) end
  return redis.call('HINCRBY', state, 'bytes', -bytes)
end

local function remove_group(name)
  local group, due = group_keys(name)
  local id = redis.call('HGET', group, 'born')
  redis.call('DEL', group, due)
  redis.call('ZREM', groups, name)
  if id then notify('removed', name, id) end
end

local function entries_of(topic, cursor, upto, count)
  local positions = redis.call('ZRANGEBYSCORE', positions_of(topic), '(' .. cursor, upto, 'LIMIT', 0, count)
  for index, position in ipairs(positions) do
    positions[index] = redis.call('XRANGE', messages, position, position)[1]
  end
  return positions
end

-- Calls take for each match behind a position, until take returns false or enough was searched.
-- Returns the position up to which it has searched, and whether there may be more.
local function search(cursor, upto, pattern, take)
  local topic = pattern:match('^=(.*)')
  local count, left = 4, 1000
  while left > 0 do
    local entries = topic and entries_of(topic, cursor, upto, count)
      or redis.call('XRANGE', messages, '(' .. cursor .. '-0', upto, 'COUNT', count)
    for _, entry in ipairs(entries) do
      cursor = entry[1]:sub(1, -3)
      local is_match = topic or matches(entry[2][2], pattern)
      if is_match and not take(cursor, entry[2][2], entry[2][4]) then return cursor, true end
    end
    if #entries < count then return cursor, false end
    left = left - count
    count = math.min(count * 4, 256)
  end
  return cursor, true
end
`;

/** ARGV: topic, metadata, payload, maximum of messages, maximum of bytes. Returns the position. */
const PUBLISH = `
local topic, payload, max_messages, max_bytes = ARGV[1], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local position = integer(math.max(last_position() + 1, microseconds()))
redis.call('XADD', messages, position .. '-0', 'topic', topic, 'about', ARGV[2])
redis.call('HSET', payloads, position, payload)
if redis.call('ZADD', positions_of(topic), position, position) == 1 and redis.call('ZCARD', positions_of(topic)) == 1 then
  update_index('SADD', topic)
end
redis.call('HSET', state, 'last', position)
local bytes = redis.call('HINCRBY', state, 'bytes', #topic + #payload)
local count = redis.call('XLEN', messages)
-- Evicts at most 1,000 at a time, after limits were lowered, and never the newest.
for _ = 1, math.min(count - 1, 1000) do
  if count <= max_messages and bytes <= max_bytes then break end
  local oldest = redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1]
  bytes = remove_message(oldest[1]:sub(1, -3), oldest[2][2])
  count = count - 1
end
notify('kept', position, topic)
return position
`;

/** ARGV: topic, metadata, payload. */
const PUBLISH_TRANSIENT = `
redis.call('PUBLISH', root, cjson.encode({'passing', last_position(), ARGV[1], ARGV[2]}) .. '\\n' .. ARGV[3])
`;

/** ARGV: reader id. Notifies the reader of the last position, in order with all other notifications. */
const START_READER = `notify('begun', ARGV[1], last_position())`;

/**
 * ARGV: after, up to, pattern, maximum of messages, maximum of bytes. Returns the position where it stopped, or nil
 * when it has reached the end; and the messages.
 */
const READ = `
local messages_left, bytes_left = tonumber(ARGV[4]), tonumber(ARGV[5])
local found = {false}
local cursor, more = search(ARGV[1], ARGV[2], ARGV[3], function(position, topic, metadata)
  local payload = redis.call('HGET', payloads, position) or ''
  found[#found + 1] = {position, topic, metadata, payload}
  messages_left, bytes_left = messages_left - 1, bytes_left - #payload
  return messages_left > 0 and bytes_left > 0
end)
if more then found[1] = cursor end
return found
`;

/** ARGV: group, after or an empty text, id for a new group, maximum of groups, lease. Returns the group's id. */
const JOIN_GROUP = `
local name, after, time = ARGV[1], ARGV[2], now()
local group = group_keys(name)
if redis.call('EXISTS', group) == 0 then
  while redis.call('ZCARD', groups) >= tonumber(ARGV[4]) do
    local idle = redis.call('ZRANGEBYSCORE', groups, '-inf', time, 'LIMIT', 0, 1)[1]
    if not idle then break end
    remove_group(idle)
  end
  if after == '' then after = last_position() end
  -- A position from a clock that was ahead: every message of this bus counts as later.
  if tonumber(after) > tonumber(last_position()) then after = '0' end
  redis.call('HSET', group, 'born', ARGV[3], 'cursor', after)
end
redis.call('ZADD', groups, time + ARGV[5], name)
save_clock(time)
return redis.call('HGET', group, 'born')
`;

/** ARGV: lease, groups. Marks the groups as having members for this time; for 0, as having none. */
const RENEW_LEASE = `
local time = now()
for index = 2, #ARGV do redis.call('ZADD', groups, 'XX', time + ARGV[1], ARGV[index]) end
save_clock(time)
`;

/**
 * ARGV: group, group id, pattern, maximum of bytes, and the ack wait of each member that claims a message. Returns nil
 * when the group was removed; else 1 when there may be more, the milliseconds until the next redelivery or -1, and
 * the deliveries.
 */
const CLAIM = `
local name, bytes_left, wanted = ARGV[1], tonumber(ARGV[4]), #ARGV - 4
local group, due = group_keys(name)
local known = redis.call('HMGET', group, 'born', 'cursor')
if known[1] ~= ARGV[2] then return false end
local time, found = now(), {}
local function take(position, topic, metadata, attempt)
  local payload = redis.call('HGET', payloads, position) or ''
  redis.call('HSET', group, position, attempt or 1)
  redis.call('ZADD', due, time + math.max(1, ARGV[5 + #found]), position)
  found[#found + 1] = {position, topic, metadata, payload, attempt or 1}
  bytes_left = bytes_left - #payload
  return #found < wanted and bytes_left > 0
end
local has_room, more = true, true
while has_room do
  local redeliveries = redis.call('ZRANGEBYSCORE', due, '-inf', time, 'LIMIT', 0, wanted)
  if #redeliveries == 0 then break end
  for _, position in ipairs(redeliveries) do
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
  cursor, more = search(known[2], '9999999999999999', ARGV[3], take)
  if cursor ~= known[2] then redis.call('HSET', group, 'cursor', cursor) end
end
if #found > 0 then save_clock(time) end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return {more and 1 or 0, first[1] and math.max(0, math.ceil(first[2] - time)) or -1, unpack(found)}
`;

/** ARGV: group, group id, position, attempt. Notifies another member that has the message by now. */
const ACK = `
local group, due = group_keys(ARGV[1])
local known = redis.call('HMGET', group, 'born', ARGV[3])
if known[1] ~= ARGV[2] or not known[2] then return end
redis.call('HDEL', group, ARGV[3])
redis.call('ZREM', due, ARGV[3])
if known[2] ~= ARGV[4] then notify('settled', ARGV[1], ARGV[3]) end
`;

/**
 * ARGV: group, group id, delay, and for each delivery its position, its attempt, and the number to store. Skips
 * deliveries that another one has replaced.
 */
const RETURN_DELIVERIES = `
local name, time = ARGV[1], now()
local group, due = group_keys(name)
if redis.call('HGET', group, 'born') ~= ARGV[2] then return end
for index = 4, #ARGV, 3 do
  local position = ARGV[index]
  if redis.call('HGET', group, position) == ARGV[index + 1] then
    redis.call('HSET', group, position, ARGV[index + 2])
    redis.call('ZADD', due, time + ARGV[3], position)
  end
end
save_clock(time)
-- Forgets positions of messages that were dropped, even when their redelivery is far off: bounds the group's size.
if redis.call('ZCARD', due) > redis.call('XLEN', messages) then
  for _, position in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    local is_waiting = tonumber(redis.call('HGET', group, position)) <= 0
    if is_waiting and #redis.call('XRANGE', messages, position, position) == 0 then
      redis.call('HDEL', group, position)
      redis.call('ZREM', due, position)
    end
  end
end
notify('due', name)
`;

/** ARGV: group. */
const REMOVE_GROUP = `remove_group(ARGV[1])`;

/** ARGV: pattern, and its levels without wildcards as `NUMBER:LEVEL`. Searches the smallest of their sets of topics. */
const DROP = `
local pattern = ARGV[1]
local smallest, count = root .. ':topics', redis.call('SCARD', root .. ':topics')
for index = 2, #ARGV do
  local set = root .. ':level:' .. ARGV[index]
  local size = redis.call('SCARD', set)
  if size < count then smallest, count = set, size end
end
for _, topic in ipairs(redis.call('SMEMBERS', smallest)) do
  if matches(topic, pattern) then
    for _, position in ipairs(redis.call('ZRANGE', positions_of(topic), 0, -1)) do remove_message(position, topic) end
  end
end
for _, name in ipairs(redis.call('ZRANGE', groups, 0, -1)) do
  if matches(cjson.decode(name)[1], pattern) then remove_group(name) end
end
`;

export const scripts = {
  publish: PRELUDE + PUBLISH,
  publishTransient: PRELUDE + PUBLISH_TRANSIENT,
  startReader: PRELUDE + START_READER,
  read: PRELUDE + READ,
  joinGroup: PRELUDE + JOIN_GROUP,
  renewLease: PRELUDE + RENEW_LEASE,
  claim: PRELUDE + CLAIM,
  ack: PRELUDE + ACK,
  returnDeliveries: PRELUDE + RETURN_DELIVERIES,
  removeGroup: PRELUDE + REMOVE_GROUP,
  drop: PRELUDE + DROP,
};
