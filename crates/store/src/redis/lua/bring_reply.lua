-- A reply under an Idempotency-Key that is brought from elsewhere: its row is made. KEYS: the name. ARGV: 1 until when,
-- 2 hash of the request's body, 3 the reply.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'until', ARGV[1], 'body', ARGV[2], 'reply', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 'done'
