-- Makes an index say what is there, after a loss that somebody accepts. KEYS: index, then rows. ARGV: the rows' bytes.
-- Answers how many rows were gone.
local gone = 0
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('ZADD', KEYS[1], 'NX', 0, ARGV[i - 1])
  else
    gone = gone + redis.call('ZREM', KEYS[1], ARGV[i - 1])
  end
end
return gone
