-- Whether a message may be sent now: the rules and the order of alias::Ledger::claim. KEYS: marker, row, claims, what
-- is remembered of this attempt, and the index. ARGV: 3 fingerprint, 4 whether the message has an id, 5 sender, 6 owner
-- and 7 number of the attempt, 8 most doubts, 9 for how long a claim is kept, 10 until when anybody waits for the
-- answer, 11 for how long an attempt is remembered, from 12 on the owners that are known to be dead.
--
-- An attempt is judged once (docs/decisions/024). This call may have been under way for long, or be the second copy of
-- one that was answered: what it took then, nobody would ever settle.
if now > tonumber(ARGV[10]) then return {text(now), 'late', '0'} end
local round = #ARGV - 11
local judged = tonumber(redis.call('GET', KEYS[4]) or -1) >= round
redis.call('SET', KEYS[4], round, 'PX', ARGV[11])
local row = read_row(KEYS[2], KEYS[5])
if not row then return {text(now), 'over', '0'} end
local live = read_claims(KEYS[3])
local fingerprint, owner, number = ARGV[3], ARGV[6], ARGV[7]
local kept = live[fingerprint]

local function say(answer, whose)
  return {text(now), answer, text(row.u), row.m, row.f, row.t, whose or ''}
end

local dead = {}
for i = 12, #ARGV do dead[ARGV[i]] = true end

local function write(state, clean, doubts)
  write_claim(KEYS[3], live, fingerprint, {
    state = state, clean = clean, doubts = doubts, till = now + tonumber(ARGV[9]),
    owner = owner, number = number, sender = ARGV[5]
  })
end

if kept then
  if kept.state == 'A' and ARGV[4] == '1' then return say('already') end
  if kept.state == 'F' and kept.owner == owner and kept.number == number then
    -- Asked twice under one attempt: the first answer was lost on its way.
    return say(kept.clean and 'granted' or 'again')
  end
  if kept.state == 'F' and not dead[kept.owner] then return say('busy', kept.owner) end
end
if row.s ~= '0' then return say('over') end
if kept then
  -- Its owner died with it in flight: that attempt, too, may have delivered it.
  local doubts = kept.doubts + (kept.state == 'F' and 1 or 0)
  if doubts > tonumber(ARGV[8]) then return say('over') end
  if judged then return say('busy') end
  write('F', false, doubts)
  return say('again')
end
local from, till = tonumber(row.f), tonumber(row.t)
if (from and now < from) or (till and now >= till) then return say('over') end
if row.m == '' then return say('uncounted') end
if has_free_use(row) then
  if judged then return say('busy') end
  row.u = redis.call('HINCRBY', KEYS[2], 'u', 1)
  write('F', true, 0)
  return say('granted')
end
return say(held(live) > 0 and 'busy' or 'over')
