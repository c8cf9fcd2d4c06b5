-- Makes a row unless there is one. KEYS: marker, row, index. ARGV: 3 the row's bytes for the index, 4 key id,
-- 5 most uses, 6 valid from, 7 valid until, 8 what is sealed, 9 who makes it (a name that a repeated request has
-- again, or empty).
local maker = redis.call('HMGET', KEYS[2], 's', 'o')
if maker[1] then
  -- The same request once more, after a crash between its steps. It writes, so that a wait for replicas is for what the
  -- first wrote, too.
  if ARGV[9] ~= '' and maker[2] == ARGV[9] then
    redis.call('HSET', KEYS[2], 'o', ARGV[9])
    return 'made'
  end
  return 'clash'
end
-- What was thrown away is not made anew: its uses would begin again.
expect_none(KEYS[2], KEYS[3])
redis.call('HSET', KEYS[2], 's', '0', 'u', '0', 'k', ARGV[4], 'm', ARGV[5], 'f', ARGV[6], 't', ARGV[7],
  'c', text(now), 'g', '', 'z', ARGV[8], 'o', ARGV[9])
redis.call('ZADD', KEYS[3], 0, ARGV[3])
return 'made'
