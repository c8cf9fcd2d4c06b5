-- Takes a bucket's marker away, unless somebody has adopted it anew. KEYS: marker. ARGV: 1 what it must say.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'done'
