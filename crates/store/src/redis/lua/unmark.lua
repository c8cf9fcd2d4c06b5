-- Puts a word in the place of a bucket's marker, unless somebody has adopted it anew: nothing is known of its aliases
-- from now on, and everybody sees why. KEYS: marker. ARGV: 1 what it must say, 2 the word.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return 'done'
