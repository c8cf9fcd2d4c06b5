-- Notes for a while that rows are sealed under our first key, unless rows may stand under a key that we do not have: of
-- two nodes that begin at the same moment with different keys one is told of the other's. KEYS: the list. ARGV: 1 the
-- time or empty, 2 how long, from 3 on our keys. Answers the key that we lack, or nothing.
local now = time_now(ARGV[1])
local ours = {}
for i = 3, #ARGV do ours[ARGV[i]] = true end
local noted = redis.call('HGETALL', KEYS[1])
for i = 1, #noted, 2 do
  if tonumber(noted[i + 1]) > now and not ours[noted[i]] then return {noted[i]} end
end
local till = now + tonumber(ARGV[2])
-- Not written with every look: half of its time is enough.
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[3]) or 0)
if before < till - tonumber(ARGV[2]) / 2 then redis.call('HSET', KEYS[1], ARGV[3], text(till)) end
return {}
