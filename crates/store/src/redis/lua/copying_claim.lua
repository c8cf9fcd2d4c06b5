-- Claims a store that is copied into for one run of the copy, unless its mark has changed since it was read. KEYS: the
-- mark. ARGV: 1 what stood there, empty for nothing; 2 what is to stand there. Answers what stands there then.
local there = redis.call('GET', KEYS[1]) or ''
if there == ARGV[1] or there == ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2])
  return ARGV[2]
end
return there
