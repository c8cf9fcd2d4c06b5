-- What an owner or operator changes. KEYS: marker, row, claims, index. ARGV: 3 until when this holds (carried out later
-- it might undo what was changed since); 4 what; for limits 5 the new end and 6 the new most uses (either may be
-- empty); for removal 5 for how long the row stays; for freeing, from 5 on, the owners that are known to be dead. A
-- removed row stays as it is.
if now > tonumber(ARGV[3]) then return 'late' end
local row = read_row(KEYS[2], KEYS[4])
if not row then return 'none' end
if row.s == '2' then
  -- A write, so that a wait for replicas is for the removal, too.
  redis.call('HSET', KEYS[2], 's', '2')
  return 'done'
end
local what = ARGV[4]

if what == 'limits' then
  local ends = tonumber(row.t)
  local is_past = ends and now >= ends
  local is_used_up = not has_free_use(row) and held(read_claims(KEYS[3])) == 0
  -- What has ended stays so.
  if is_past or is_used_up then return 'done' end
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], 't', ARGV[5]) end
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[2], 'm', ARGV[6]) end
elseif what == 'pause' then
  redis.call('HSET', KEYS[2], 's', '1')
elseif what == 'resume' then
  redis.call('HSET', KEYS[2], 's', '0')
elseif what == 'remove' then
  redis.call('HSET', KEYS[2], 's', '2', 'z', '', 'g', text(now + tonumber(ARGV[5])))
elseif what == 'free' then
  local dead, freed = {}, 0
  for i = 5, #ARGV do dead[ARGV[i]] = true end
  for fingerprint, claim in pairs(read_claims(KEYS[3])) do
    if claim.state == 'D' or (claim.state == 'F' and dead[claim.owner]) then
      redis.call('HDEL', KEYS[3], fingerprint)
      freed = freed + 1
    end
  end
  redis.call('HSET', KEYS[2], 'u', math.max(row.u - freed, 0))
end
return 'done'
