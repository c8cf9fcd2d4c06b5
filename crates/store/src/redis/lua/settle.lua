-- How an attempt ended: the table of alias::Kept::settle. KEYS: marker, row, claims, what is remembered of this
-- attempt, and the index. ARGV: 3 owner and 4 number of the attempt, 5 outcome, 6 for how long an attempt is
-- remembered. What is stale or unknown changes nothing; and a claim of it that is still under way must take nothing any
-- more. A row that was lost may be restored: until that is known, the settlement waits.
local row = read_row(KEYS[2], KEYS[5])
if not row then return 'unknown' end
local live, outcome = read_claims(KEYS[3]), ARGV[5]

local function forget(fingerprint)
  redis.call('HDEL', KEYS[3], fingerprint)
end

for fingerprint, claim in pairs(live) do
  if claim.owner == ARGV[3] and claim.number == ARGV[4] then
    local mine = claim.state == 'F'
    if outcome == 'delivered' and (mine or claim.state == 'D') then
      claim.state = 'A'
      write_claim(KEYS[3], live, fingerprint, claim)
      return 'kept'
    end
    if not mine then return 'stale' end
    if claim.clean and outcome ~= 'lost' then
      forget(fingerprint)
      redis.call('HSET', KEYS[2], 'u', math.max(row.u - 1, 0))
      return 'given back'
    end
    if outcome == 'refused' then
      forget(fingerprint)
      return 'spent'
    end
    if outcome == 'lost' then claim.doubts = claim.doubts + 1 end
    claim.state, claim.clean = 'D', false
    write_claim(KEYS[3], live, fingerprint, claim)
    return 'kept'
  end
end
redis.call('SET', KEYS[4], 99, 'PX', ARGV[6])
return 'unknown'
