-- Changes the mark of a store that is copied into, or takes it away, for the run that has claimed it last and for no
-- other. KEYS: the mark. ARGV: 1 the run; 2 the new mark, or nothing: it goes. Answers 'gone' if it went already.
local there = redis.call('GET', KEYS[1])
if not there and not ARGV[2] then return 'gone' end
if not there or string.match(there, '^[^\n]*\n([^\n]*)\n') ~= ARGV[1] then
  return redis.error_reply('NOTOURS another run')
end
if ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
return 'done'
