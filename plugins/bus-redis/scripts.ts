/**
 * What the server does in one step each, in its Lua (redis.io/docs/latest/develop/programmability/eval-intro).
 * KEYS[1] is the root of all names:
 *
 * - `ROOT:messages`: stream of the kept messages at `POSITION-0`: their topic, and in JSON what is `about` them.
 * - `ROOT:payloads`: hash of their payloads by position: who looks for a topic loads none that it does not want.
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

-- Milliseconds by a clock that stands still when the server's is set back: a delay never becomes longer.
local function now()
  local known = redis.call('HMGET', state, 'clock', 'clock_offset')
  local clock, offset = tonumber(known[1] or 0), tonumber(known[2] or 0)
  local time = microseconds() / 1000 + offset
  if time >= clock then return time end
  redis.call('HSET', state, 'clock_offset', string.format('%.3f', offset + clock - time))
  return clock
end
local function remember(time) redis.call('HSET', state, 'clock', string.format('%.3f', time)) end

local function fits(topic, pattern) return string.find(topic .. '/', pattern) ~= nil end

local function remove(entry)
  local position = entry[1]:sub(1, -3)
  local bytes = #entry[2][2] + redis.call('HSTRLEN', payloads, position)
  redis.call('XDEL', messages, entry[1])
  redis.call('HDEL', payloads, position)
  return redis.call('HINCRBY', state, 'bytes', -bytes)
end

local function forget(name)
  local group, due = group_of(name)
  local born = redis.call('HGET', group, 'born')
  redis.call('DEL', group, due)
  redis.call('ZREM', groups, name)
  if born then tell('removed', name, born) end
end

-- Calls take for what fits behind a position until it answers false, or until it has looked at enough.
-- Answers how far it came, and whether there may be more.
local function scan(cursor, upto, pattern, take)
  local count, left = 4, 1000
  while left > 0 do
    local entries = redis.call('XRANGE', messages, '(' .. cursor .. '-0', upto, 'COUNT', count)
    for _, entry in ipairs(entries) do
      cursor = entry[1]:sub(1, -3)
      if fits(entry[2][2], pattern) and not take(cursor, entry[2][2], entry[2][4]) then return cursor, true end
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
redis.call('HSET', state, 'last', position)
local bytes = redis.call('HINCRBY', state, 'bytes', #topic + #payload)
local count = redis.call('XLEN', messages)
-- Not all at once where the limits have become much lower; and the newest stays.
for _ = 1, math.min(count - 1, 1000) do
  if count <= most and bytes <= most_bytes then break end
  bytes = remove(redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1])
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
  cursor, more = scan(known[2], '+', ARGV[3], take)
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

/** pattern. */
const DROP = `
local cursor = '0'
repeat
  local entries = redis.call('XRANGE', messages, '(' .. cursor .. '-0', '+', 'COUNT', 500)
  for _, entry in ipairs(entries) do
    cursor = entry[1]:sub(1, -3)
    if fits(entry[2][2], ARGV[1]) then remove(entry) end
  end
until #entries == 0
for _, name in ipairs(redis.call('ZRANGE', groups, 0, -1)) do
  if fits(cjson.decode(name)[1], ARGV[1]) then forget(name) end
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

/**
 * A filter as a Lua pattern (lua.org/manual/5.1/manual.html#5.4.1) for a topic with a slash behind it: says what
 * `topicMatches` says.
 */
export function patternOf(filter: string): string {
  let pattern = "^";
  for (const level of filter.split("/")) {
    if (level === "#") return pattern;
    pattern += level === "+" ? "[^/]+/" : `${escaped(level)}/`;
  }
  return `${pattern}$`;
}

/** A sign before `%` stands for itself; a NUL has a name. Letters and bytes of UTF-8 need nothing. */
function escaped(level: string): string {
  return level.replaceAll("\0", "%z").replace(/[!-/:-@[-`{-~]/g, (sign) => `%${sign}`);
}
