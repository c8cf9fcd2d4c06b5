-- What stands under an Idempotency-Key; if nothing does and more is given, that is stored. KEYS: the name. ARGV: 1 the
-- time or empty; then 2 how long it is kept, 3 hash of the request's body, 4 the reply, and the row that is being made:
-- 5 key, 6 key id, 7 most uses, 8 valid from, 9 valid until, 10 what is sealed. The row stands here until it is known
-- to be made, so that whoever comes next can finish what a crash cut short.
local now = time_now(ARGV[1])
local old = redis.call('HMGET', KEYS[1], 'until', 'body', 'reply', 'row', 'key', 'm', 'f', 't', 'z')
if old[1] and tonumber(old[1]) > now then
  -- Who comes to finish it writes, so that a wait for replicas is for what was reserved, too.
  if old[4] and #ARGV > 1 then redis.call('HSET', KEYS[1], 'until', old[1]) end
  if old[4] then return {'pending', old[1], old[2], old[3], old[4], old[5], old[6], old[7], old[8], old[9]} end
  return {'done', old[1], old[2], old[3]}
end
if #ARGV == 1 then return {'none'} end
local till = text(now + tonumber(ARGV[2]))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'until', till, 'body', ARGV[3], 'reply', ARGV[4], 'row', ARGV[5], 'key', ARGV[6],
  'm', ARGV[7], 'f', ARGV[8], 't', ARGV[9], 'z', ARGV[10])
redis.call('PEXPIREAT', KEYS[1], till)
return {'new', till}
