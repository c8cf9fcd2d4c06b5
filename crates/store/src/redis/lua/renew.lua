-- A node's lease. KEYS: the lease. ARGV: 1 its length, 2 what an operator sees, 3 'first' or 'again'. A lease that has
-- run out is never taken up again: others may have acted on its end. Answers the time and whether it holds.
local held = ARGV[3] == 'first' or redis.call('EXISTS', KEYS[1]) == 1
if held then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) end
local time = redis.call('TIME')
return {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), held and 1 or 0}
