-- Lets go of rows whose retention is over. KEYS: marker, index, then rows. ARGV: 3 the asking node's time, then the
-- rows' bytes as the index has them. Two clocks must agree that it is, so that a step of one deletes none. A row that is
-- not there although the index has it was lost: that is left as it is, for whoever asks for it (prelude.lua).
local deleted = 0
local earlier = math.min(now, tonumber(ARGV[3]))
for i = 3, #KEYS do
  local fields = redis.call('HMGET', KEYS[i], 's', 't', 'g')
  local goes = fields[1] and goes_at({s = fields[1], t = fields[2], g = fields[3]})
  if goes and goes <= earlier then
    redis.call('DEL', KEYS[i])
    redis.call('ZREM', KEYS[2], ARGV[i + 1])
    deleted = deleted + 1
  end
end
return deleted
