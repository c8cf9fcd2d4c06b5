-- What is known of one alias. KEYS: marker, row, claims, index. Both look-ups are always made, so that their time does
-- not tell whether there is a row.
local row = read_row(KEYS[2], KEYS[4])
local sealed = redis.call('HGET', KEYS[2], 'z')
local claims = redis.call('HGETALL', KEYS[3])
if not row then return {text(now)} end
return {text(now), row.s, text(row.u), row.m, row.f, row.t, row.c, sealed, claims}
