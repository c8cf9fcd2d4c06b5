-- What is known of one alias. KEYS: marker, row, claims, index. ARGV: 3 the row's bytes for the index. All claims are
-- read even where there is no row, so that the time does not tell whether there is one: the look into the index takes
-- about as long as a row takes to answer with.
local row = read_row(KEYS[2], KEYS[4], ARGV[3])
local sealed = redis.call('HGET', KEYS[2], 'z')
local claims = redis.call('HGETALL', KEYS[3])
if not row then return {text(now)} end
return {text(now), row.s, text(row.u), row.m, row.f, row.t, row.c, sealed, claims}
