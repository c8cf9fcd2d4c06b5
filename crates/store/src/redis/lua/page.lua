-- Row keys of a bucket in order. KEYS: marker, index. ARGV: 3 where to begin, as ZRANGEBYLEX has it, 4 how many. An
-- index without the empty name was lost (mark.lua): what it lists now is not all.
if not redis.call('ZSCORE', KEYS[2], '') then return redis.error_reply('NOTOURS an index is gone') end
return redis.call('ZRANGEBYLEX', KEYS[2], ARGV[3], '+', 'LIMIT', 0, ARGV[4])
