-- A node's lease. KEYS: marker, lease. ARGV: 3 its length, 4 what an operator sees, 5 'first' or 'again'. A lease that
-- has run out is never taken up again: others may have acted on its end. Answers the time and whether it holds.
local held = ARGV[5] == 'first' or redis.call('EXISTS', KEYS[2]) == 1
if held then redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3]) end
return {text(now), held and 1 or 0}
