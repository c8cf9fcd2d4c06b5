-- Puts a row that is brought from elsewhere in place of whatever is there. KEYS: marker, row, claims, index. ARGV: 3
-- the row's bytes for the index; nothing else: there is no such row. 4 state, 5 uses, 6 key id, 7 most uses, 8 valid
-- from, 9 valid until, 10 created, 11 when a removed row goes, 12 what is sealed, 13 when the last claim ends, then
-- fingerprints and claims in turn.
redis.call('DEL', KEYS[2], KEYS[3])
if not ARGV[4] then
  redis.call('ZREM', KEYS[4], ARGV[3])
  return 'done'
end
redis.call('HSET', KEYS[2], 's', ARGV[4], 'u', ARGV[5], 'k', ARGV[6], 'm', ARGV[7], 'f', ARGV[8], 't', ARGV[9],
  'c', ARGV[10], 'g', ARGV[11], 'z', ARGV[12], 'o', '')
redis.call('ZADD', KEYS[4], 0, ARGV[3])
for i = 14, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
if ARGV[13] ~= '' then redis.call('PEXPIREAT', KEYS[3], ARGV[13]) end
return 'done'
