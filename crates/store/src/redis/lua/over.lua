-- A beginning is over, or must not go on: its marker goes, unless another one has begun since. KEYS: the marker of a
-- store that begins. ARGV: 1 what it must say.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'done'
