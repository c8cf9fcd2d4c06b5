-- Puts another marker in place of one that the caller has seen, and of no other. KEYS: marker, index. ARGV: 1 the new
-- one, 2 'begin' (an index that is not there begins) or 'end' (it must be there: it was lost otherwise), from 3 on the
-- markers that may go; an empty one means none. Answers the marker that stands there then.
local there = redis.call('GET', KEYS[1]) or ''
if there ~= ARGV[1] then
  local may_go = false
  for i = 3, #ARGV do may_go = may_go or there == ARGV[i] end
  if not may_go then return there end
end
if ARGV[2] == 'begin' then
  redis.call('ZADD', KEYS[2], 0, '')
elseif not redis.call('ZSCORE', KEYS[2], '') then
  return redis.error_reply('NOTOURS an index is gone')
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
