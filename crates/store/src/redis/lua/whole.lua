-- A row with all that a copy takes along. KEYS: marker, row, claims, and the index where a row that was
-- lost must not be taken for none.
local row = read_row(KEYS[2], KEYS[4])
if not row then return {text(now)} end
local more = redis.call('HMGET', KEYS[2], 'z', 'k')
return {
  text(now), row.s, text(row.u), row.m, row.f, row.t, row.c, more[1], redis.call('HGETALL', KEYS[3]), more[2], row.g
}
