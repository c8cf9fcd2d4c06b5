-- Row keys of a bucket in order. KEYS: marker, index. ARGV: 3 where to begin, as ZRANGEBYLEX has it, 4 how many.
return redis.call('ZRANGEBYLEX', KEYS[2], ARGV[3], '+', 'LIMIT', 0, ARGV[4])
