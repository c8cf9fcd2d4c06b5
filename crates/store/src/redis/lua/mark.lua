-- Marks a bucket as one of a store, unless it is. KEYS: marker, index. ARGV: 1 the marker. The empty name stands in
-- every index, before all rows: an index without it was lost.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('ZADD', KEYS[2], 0, '')
return 'done'
