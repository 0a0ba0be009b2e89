/**
 * The store's Lua scripts. Each is one step for everybody who uses the server, and tells the time by the server's
 * clock. Of a namespace there are:
 *
 * - `keys:NAME`, a sorted set of the keys that are there, all of one score: so it is in the order of their bytes;
 * - `values:NAME`, a hash of their rows: "VERSION UPDATED_AT EXPIRES_AT JSON", times in ms, 0 is never;
 * - `changes:NAME`, a sorted set of keys by the version of their last change, those that were deleted included;
 * - `deleted:NAME`, those that were deleted, as long as they are known;
 * - `ends:NAME`, the keys that end, by when.
 *
 * And of all: `namespaces` and `pruned`, hashes of the last version and of the newest deletion that is not known any
 * more; `due`, the namespaces by when something in them ends; `floor`, above the versions of all that were dropped,
 * so that a later one of the same name gives no version a second time.
 *
 * Nothing is written before everything has been checked: Redis does not take back what a script has done.
 */
const COMMON = `
local P, NS = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function of(kind, name) return P .. kind .. ':' .. name end
local function text(number) return string.format('%.0f', number) end
local function over(row)
  local ends = tonumber(string.match(row, '^%d+ %d+ (%d+) '))
  return ends > 0 and ends <= now
end
local function live(key)
  if not redis.call('ZSCORE', of('keys', NS), key) then return false end
  local ends = redis.call('ZSCORE', of('ends', NS), key)
  return not ends or tonumber(ends) > now
end
local function bury(name, key, version)
  redis.call('HDEL', of('values', name), key)
  redis.call('ZREM', of('keys', name), key)
  redis.call('ZREM', of('ends', name), key)
  redis.call('ZADD', of('changes', name), text(version), key)
  redis.call('ZADD', of('deleted', name), text(version), key)
end
local function changed(name, version, channel, max_deletions)
  redis.call('HSET', P .. 'namespaces', name, text(version))
  local surplus = redis.call('ZCARD', of('deleted', name)) - max_deletions
  if surplus > 0 then
    local gone = redis.call('ZPOPMIN', of('deleted', name), math.min(surplus, 1000))
    for i = 1, #gone, 2 do redis.call('ZREM', of('changes', name), gone[i]) end
    redis.call('HSET', P .. 'pruned', name, gone[#gone])
  end
  redis.call('PUBLISH', channel, '+' .. name)
end
`;

/** PREFIX NAME CHANNEL MAX_DELETIONS, and for each write OP KEY EXPECT TTL JSON. */
const WRITE = `${COMMON}
local channel, max_deletions = ARGV[3], tonumber(ARGV[4])
local known = redis.call('HGET', P .. 'namespaces', NS)
local before = tonumber(known or redis.call('GET', P .. 'floor') or '0')

local version, planned = before, {}
for i = 5, #ARGV, 5 do
  local op, key, expect = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = planned[key]
  if not found then
    found = live(key) and tonumber(redis.call('ZSCORE', of('changes', NS), key)) or 0
  end
  if expect ~= '' and tonumber(expect) ~= found then
    return { 'conflict', text((i - 5) / 5), text(found) }
  end
  if op == 'put' then
    version = version + 1
    found = version
  elseif found > 0 then
    version = version + 1
    found = 0
  end
  planned[key] = found
end

local answers = { 'done', text(now) }
version = before
for i = 5, #ARGV, 5 do
  local op, key, ttl = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  if op == 'put' then
    version = version + 1
    local ends = ttl == '' and 0 or math.min(now + tonumber(ttl), 8.64e15)
    local row = text(version) .. ' ' .. text(now) .. ' ' .. text(ends) .. ' ' .. ARGV[i + 4]
    redis.call('HSET', of('values', NS), key, row)
    redis.call('ZADD', of('keys', NS), 0, key)
    redis.call('ZADD', of('changes', NS), text(version), key)
    redis.call('ZREM', of('deleted', NS), key)
    if ends > 0 then
      redis.call('ZADD', of('ends', NS), text(ends), key)
      redis.call('ZADD', P .. 'due', 'LT', text(ends), NS)
    else
      redis.call('ZREM', of('ends', NS), key)
    end
    answers[#answers + 1] = text(version) .. ' ' .. text(now) .. ' ' .. text(ends)
  elseif live(key) then
    version = version + 1
    answers[#answers + 1] = redis.call('HGET', of('values', NS), key)
    bury(NS, key, version)
  else
    answers[#answers + 1] = false
  end
end
if version > before then
  if not known and before > 0 then redis.call('HSET', P .. 'pruned', NS, text(before)) end
  changed(NS, version, channel, max_deletions)
end
return answers
`;

/**
 * PREFIX NAME MIN MAX COUNT MAX_BYTES NEED_ONE. Looks at so many keys; answers what became of it ("end": no key is
 * left; "full": the next one is too large; "on": there may be more), the last key that was looked at, and keys with
 * their rows.
 */
const LIST = `${COMMON}
local count, bytes, any = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '0'
local keys = redis.call('ZRANGEBYLEX', of('keys', NS), ARGV[3], ARGV[4], 'LIMIT', 0, count)
local answers = { #keys < count and 'end' or 'on', keys[#keys] or '' }
for _, key in ipairs(keys) do
  local row = redis.call('HGET', of('values', NS), key)
  if row and not over(row) then
    bytes = bytes - #row
    if bytes < 0 and any then
      answers[1] = 'full'
      return answers
    end
    any = true
    answers[#answers + 1] = key
    answers[#answers + 1] = row
  end
end
return answers
`;

/**
 * PREFIX NAME AFTER BEGIN COUNT MAX_BYTES. Answers the namespace's version, what is pruned, the version that was
 * looked at last, whether there may be more, and for each change its version, its key and its row, if it has one.
 */
const CHANGES = `${COMMON}
local after, begin, count, bytes = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local version = redis.call('HGET', P .. 'namespaces', NS) or '0'
local pruned = redis.call('HGET', P .. 'pruned', NS) or '0'
local found = redis.call(
  'ZRANGEBYSCORE', of('changes', NS), '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
local answers = { version, pruned, after, #found == count * 2 and 1 or 0 }
for i = 1, #found, 2 do
  local key = found[i]
  if string.sub(key, 1, #begin) == begin then
    local row = redis.call('HGET', of('values', NS), key)
    -- What is over is told when it has been cleared away.
    if not row or not over(row) then
      if row then bytes = bytes - #row end
      if bytes < 0 and #answers > 4 then
        answers[4] = 1
        return answers
      end
      answers[#answers + 1] = found[i + 1]
      answers[#answers + 1] = key
      answers[#answers + 1] = row
    end
  end
  answers[3] = found[i + 1]
end
return answers
`;

/** PREFIX "" CHANNEL MAX_DELETIONS COUNT. Answers 1 when there is more to do. */
const CLEAR_UP = `${COMMON}
local channel, max_deletions, left = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', text(now), 'LIMIT', 0, left)) do
  local keys = redis.call('ZRANGEBYSCORE', of('ends', name), '-inf', text(now), 'LIMIT', 0, left)
  if #keys > 0 then
    local version = tonumber(redis.call('HGET', P .. 'namespaces', name))
    for _, key in ipairs(keys) do
      version = version + 1
      bury(name, key, version)
    end
    changed(name, version, channel, max_deletions)
  end
  local next = redis.call('ZRANGE', of('ends', name), 0, 0, 'WITHSCORES')
  if next[2] then
    redis.call('ZADD', P .. 'due', next[2], name)
  else
    redis.call('ZREM', P .. 'due', name)
  end
  left = left - math.max(#keys, 1)
  if left <= 0 then return 1 end
end
return 0
`;

/** PREFIX NAME CHANNEL. What is large is freed beside the server's work, however large it is. */
const DROP = `${COMMON}
local version = redis.call('HGET', P .. 'namespaces', NS)
if version then
  local floor = tonumber(redis.call('GET', P .. 'floor') or '0')
  redis.call('SET', P .. 'floor', text(math.max(floor, version + 1)))
end
redis.call('HDEL', P .. 'namespaces', NS)
redis.call('HDEL', P .. 'pruned', NS)
redis.call('ZREM', P .. 'due', NS)
for _, kind in ipairs({ 'keys', 'values', 'changes', 'deleted', 'ends' }) do
  redis.call('UNLINK', of(kind, NS))
end
redis.call('PUBLISH', ARGV[3], '-' .. NS)
`;

export const SCRIPTS = {
  stateWrite: WRITE,
  stateList: LIST,
  stateChanges: CHANGES,
  stateClearUp: CLEAR_UP,
  stateDrop: DROP,
} as const;
