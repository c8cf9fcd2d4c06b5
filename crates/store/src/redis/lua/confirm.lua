-- Ends the making of a row under an Idempotency-Key. KEYS: the name. ARGV: 1 the row, 2 'made', or 'clash': then the
-- name is free again.
if redis.call('HGET', KEYS[1], 'row') == ARGV[1] then
  if ARGV[2] == 'made' then
    redis.call('HDEL', KEYS[1], 'row', 'key', 'm', 'f', 't', 'z')
  else
    redis.call('DEL', KEYS[1])
  end
end
return 'done'
