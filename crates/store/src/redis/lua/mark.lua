-- Marks a bucket as one of a store, unless it is. KEYS: marker, index. ARGV: 1 the marker, 2 what it may take the place
-- of (unmark.lua), or empty: nothing. The empty name stands in every index, before all rows: an index without it was
-- lost.
local stands = redis.call('GET', KEYS[1])
if not stands or stands == ARGV[2] then redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('ZADD', KEYS[2], 0, '')
return 'done'
