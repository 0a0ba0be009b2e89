/**
 * The Lua scripts of the store, each one atomic step on the server and by the server's clock. Keys for each namespace:
 *
 * - `keys:NAME`: sorted set of the existing keys, all with the same score, so that they are in the order of their bytes.
 * - `values:NAME`: hash of their rows, "VERSION UPDATED_AT EXPIRES_AT JSON", with times in ms and 0 for never.
 * - `changes:NAME`: sorted set of keys, deleted ones included, by the version of their last change.
 * - `deleted:NAME`: sorted set of the deleted keys that are still remembered.
 * - `ends:NAME`: sorted set of the keys that expire, by their time.
 *
 * Keys for all namespaces: `namespaces`, hash of their versions; `pruned`, hash of the newest deletion that each has
 * forgotten; `due`, sorted set of the namespaces by the time of their first expiry; `floor`, a version above those of
 * all dropped namespaces, so that a later namespace of the same name repeats no version.
 *
 * A script checks everything before it writes: Redis does not roll back.
 */
const COMMON = `
local P, NS = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function key_of(kind, name) return P .. kind .. ':' .. name end
local function integer(number) return string.format('%.0f', number) end
local function expired(row)
  local ends = tonumber(string.match(row, '^%d+ %d+ (%d+) '))
  return ends > 0 and ends <= now
end
local function exists(key)
  if not redis.call('ZSCORE', key_of('keys', NS), key) then return false end
  local ends = redis.call('ZSCORE', key_of('ends', NS), key)
  return not ends or tonumber(ends) > now
end
local function delete_key(name, key, version)
  redis.call('HDEL', key_of('values', name), key)
  redis.call('ZREM', key_of('keys', name), key)
  redis.call('ZREM', key_of('ends', name), key)
  redis.call('ZADD', key_of('changes', name), integer(version), key)
  redis.call('ZADD', key_of('deleted', name), integer(version), key)
end
local function notify_change(name, version, channel, max_deletions)
  redis.call('HSET', P .. 'namespaces', name, integer(version))
  local surplus = redis.call('ZCARD', key_of('deleted', name)) - max_deletions
  if surplus > 0 then
    local gone = redis.call('ZPOPMIN', key_of('deleted', name), math.min(surplus, 1000))
    for i = 1, #gone, 2 do redis.call('ZREM', key_of('changes', name), gone[i]) end
    redis.call('HSET', P .. 'pruned', name, gone[#gone])
  end
  redis.call('PUBLISH', channel, '+' .. name)
end
`;

/**
 * ARGV: PREFIX NAME CHANNEL MAX_DELETIONS, and for each write OP KEY EXPECT TTL JSON. Returns "conflict", the index of
 * the write and the version found; or "done", the time and the row of each write.
 */
const WRITE = `${COMMON}
local channel, max_deletions = ARGV[3], tonumber(ARGV[4])
local known = redis.call('HGET', P .. 'namespaces', NS)
local before = tonumber(known or redis.call('GET', P .. 'floor') or '0')

local version, planned = before, {}
for i = 5, #ARGV, 5 do
  local op, key, expect = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = planned[key]
  if not found then
    found = exists(key) and tonumber(redis.call('ZSCORE', key_of('changes', NS), key)) or 0
  end
  if expect ~= '' and tonumber(expect) ~= found then
    return { 'conflict', integer((i - 5) / 5), integer(found) }
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

local answers = { 'done', integer(now) }
version = before
for i = 5, #ARGV, 5 do
  local op, key, ttl = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  if op == 'put' then
    version = version + 1
    local ends = ttl == '' and 0 or math.min(now + tonumber(ttl), 8.64e15)
    local row = integer(version) .. ' ' .. integer(now) .. ' ' .. integer(ends) .. ' ' .. ARGV[i + 4]
    redis.call('HSET', key_of('values', NS), key, row)
    redis.call('ZADD', key_of('keys', NS), 0, key)
    redis.call('ZADD', key_of('changes', NS), integer(version), key)
    redis.call('ZREM', key_of('deleted', NS), key)
    if ends > 0 then
      redis.call('ZADD', key_of('ends', NS), integer(ends), key)
      redis.call('ZADD', P .. 'due', 'LT', integer(ends), NS)
    else
      redis.call('ZREM', key_of('ends', NS), key)
    end
    answers[#answers + 1] = integer(version) .. ' ' .. integer(now) .. ' ' .. integer(ends)
  elseif exists(key) then
    version = version + 1
    answers[#answers + 1] = redis.call('HGET', key_of('values', NS), key)
    delete_key(NS, key, version)
  else
    answers[#answers + 1] = false
  end
end
if version > before then
  if not known and before > 0 then redis.call('HSET', P .. 'pruned', NS, integer(before)) end
  notify_change(NS, version, channel, max_deletions)
end
return answers
`;

/**
 * ARGV: PREFIX NAME MIN MAX COUNT MAX_BYTES NEED_ONE. Reads COUNT keys. Returns "end" (no more keys), "full" (the next
 * one exceeds MAX_BYTES) or "on" (there may be more), the last key read, and the keys with their rows.
 */
const LIST = `${COMMON}
local count, bytes, any = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '0'
local keys = redis.call('ZRANGEBYLEX', key_of('keys', NS), ARGV[3], ARGV[4], 'LIMIT', 0, count)
local answers = { #keys < count and 'end' or 'on', keys[#keys] or '' }
for _, key in ipairs(keys) do
  local row = redis.call('HGET', key_of('values', NS), key)
  if row and not expired(row) then
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
 * ARGV: PREFIX NAME AFTER KEY_PREFIX COUNT MAX_BYTES. Returns the namespace's version, its newest forgotten deletion,
 * the version up to which it has searched, whether there may be more, and for each change its version, key and row.
 */
const CHANGES = `${COMMON}
local after, key_prefix, count, bytes = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local version = redis.call('HGET', P .. 'namespaces', NS) or '0'
local pruned = redis.call('HGET', P .. 'pruned', NS) or '0'
local found = redis.call(
  'ZRANGEBYSCORE', key_of('changes', NS), '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
local answers = { version, pruned, after, #found == count * 2 and 1 or 0 }
for i = 1, #found, 2 do
  local key = found[i]
  if string.sub(key, 1, #key_prefix) == key_prefix then
    local row = redis.call('HGET', key_of('values', NS), key)
    -- An expired entry becomes a change when it is deleted.
    if not row or not expired(row) then
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

/** ARGV: PREFIX "" CHANNEL MAX_DELETIONS COUNT. Deletes up to COUNT expired entries. Returns 1 when there are more. */
const DELETE_EXPIRED = `${COMMON}
local channel, max_deletions, left = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', integer(now), 'LIMIT', 0, left)) do
  local keys = redis.call('ZRANGEBYSCORE', key_of('ends', name), '-inf', integer(now), 'LIMIT', 0, left)
  if #keys > 0 then
    local version = tonumber(redis.call('HGET', P .. 'namespaces', name))
    for _, key in ipairs(keys) do
      version = version + 1
      delete_key(name, key, version)
    end
    notify_change(name, version, channel, max_deletions)
  end
  local next = redis.call('ZRANGE', key_of('ends', name), 0, 0, 'WITHSCORES')
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

/** ARGV: PREFIX NAME CHANNEL. UNLINK frees memory in the background, however large the namespace is. */
const DROP = `${COMMON}
local version = redis.call('HGET', P .. 'namespaces', NS)
if version then
  local floor = tonumber(redis.call('GET', P .. 'floor') or '0')
  redis.call('SET', P .. 'floor', integer(math.max(floor, version + 1)))
end
redis.call('HDEL', P .. 'namespaces', NS)
redis.call('HDEL', P .. 'pruned', NS)
redis.call('ZREM', P .. 'due', NS)
for _, kind in ipairs({ 'keys', 'values', 'changes', 'deleted', 'ends' }) do
  redis.call('UNLINK', key_of(kind, NS))
end
redis.call('PUBLISH', ARGV[3], '-' .. NS)
`;

export const SCRIPTS = {
  stateWrite: WRITE,
  stateList: LIST,
  stateChanges: CHANGES,
  stateDeleteExpired: DELETE_EXPIRED,
  stateDrop: DROP,
} as const;
