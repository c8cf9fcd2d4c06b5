-- Lets go of rows that have ended. KEYS: marker, index, then rows. ARGV: 3 the asking node's time, then the rows'
-- bytes as the index has them. A row that has ended gets an expiry, and Redis does the rest. Two clocks must agree
-- that it has: a live row has no expiry, so that a step of one clock deletes none.
local deleted = 0
local earlier = math.min(now, tonumber(ARGV[3]))
for i = 3, #KEYS do
  local fields = redis.call('HMGET', KEYS[i], 's', 't', 'g')
  local ends, goes = tonumber(fields[2]), tonumber(fields[3])
  if not fields[1] then
    redis.call('ZREM', KEYS[2], ARGV[i + 1])
    deleted = deleted + 1
  else
    if fields[1] ~= '2' then goes = ends and ends <= earlier and ends + RETENTION end
    if goes and goes <= earlier then
      redis.call('DEL', KEYS[i])
      redis.call('ZREM', KEYS[2], ARGV[i + 1])
      deleted = deleted + 1
    elseif goes and redis.call('PTTL', KEYS[i]) == -1 then
      redis.call('PEXPIREAT', KEYS[i], text(goes))
    end
  end
end
return deleted
