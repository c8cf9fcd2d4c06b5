-- Notes until when rows of a server key may stand; never sooner than noted before. KEYS: the list. ARGV: 1 key id,
-- 2 until when.
local noted = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
if tonumber(ARGV[2]) > noted then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 'done'
