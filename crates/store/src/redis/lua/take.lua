-- One from a bucket of alias::Rate: the state is when the bucket will be full. KEYS: the bucket. ARGV: 1 the time or
-- empty, 2 how long until one more may come, 3 how many at once. Answers how long to wait; 0: taken.
local now = time_now(ARGV[1])
local every, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
local was = tonumber(redis.call('GET', KEYS[1]) or 0)
-- Later than for an empty bucket: a clock that was ahead wrote that, and must lock nobody out now that it is right.
if was > now + every * burst then was = 0 end
local full_at = math.max(was, now) + every
local over = full_at - now - every * burst
if over > 0 then return text(over) end
redis.call('SET', KEYS[1], text(full_at), 'PXAT', text(full_at))
return '0'
