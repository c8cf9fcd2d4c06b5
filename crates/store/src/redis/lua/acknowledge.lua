-- Forgets the claim of a message that was delivered and whose sender knows. KEYS: marker, row, claims. ARGV: 3
-- fingerprint, 4 until when this holds: carried out later, it might be about the same message's next delivery.
if now > tonumber(ARGV[4]) then return 'late' end
local value = redis.call('HGET', KEYS[3], ARGV[3])
if value and unpack_claim(value).state == 'A' then redis.call('HDEL', KEYS[3], ARGV[3]) end
return 'done'
