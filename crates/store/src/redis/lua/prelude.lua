-- In front of every script on an alias, behind clock.lua. KEYS[1] is the marker of the alias's bucket, ARGV[1] what it
-- must say, ARGV[2] the time or empty.
-- An empty, evicted or replaced store has another marker or none: then nothing is known of any alias.
local marker = redis.call('GET', KEYS[1])
if marker ~= ARGV[1] then
  return redis.error_reply('NOTOURS ' .. (marker and 'another marker' or 'no marker'))
end

local now = time_now(ARGV[2])

-- A row: s state (0 active, 1 paused, 2 removed), u uses, m most uses, f valid from, t valid until, c created,
-- g when a removed row goes, o who made it, k server key, z what is sealed. m, f, t and g may be empty.
-- A row past its retention is not there, whether or not it was deleted yet.
local RETENTION = 30 * 24 * 3600 * 1000

local function goes_at(row)
  local ends = tonumber(row.t)
  if row.s == '2' then return tonumber(row.g) end
  return ends and ends + RETENTION
end

-- A row and its name in the index come and go in one step, and neither ends by itself: a row that is not there although
-- the index has it was thrown away or lost. The empty name stands in every index (mark.lua): without it the index itself
-- was. Then it is not known whether there was such a row. The row's bytes may be given where time matters; keys of rows
-- end in them in hexadecimal.
local function expect_none(key, index, bytes)
  local function byte(pair) return string.char(tonumber(pair, 16)) end
  bytes = bytes or string.gsub(string.sub(key, -32), '%x%x', byte)
  local listed = redis.call('ZMSCORE', index, '', bytes)
  if not listed[1] or listed[2] then error({err = 'NOTOURS a row or its index is gone'}) end
end

-- None: there is no such row, which is known for certain where the index is given.
local function read_row(key, index, bytes)
  local fields = redis.call('HMGET', key, 's', 'u', 'm', 'f', 't', 'c', 'g')
  if not fields[1] then
    if index then expect_none(key, index, bytes) end
    return nil
  end
  local row = {
    s = fields[1], u = tonumber(fields[2]), m = fields[3], f = fields[4], t = fields[5], c = fields[6], g = fields[7]
  }
  local goes = goes_at(row)
  if goes and goes <= now then return nil end
  return row
end

-- A kept claim is text: state (F in flight, D in doubt, A accepted), clean, doubts, until, owner, number, sender.
local function unpack_claim(value)
  local state, clean, doubts, till, owner, number, sender =
    string.match(value, '^(%u) (%d) (%d+) (%d+) (%x+:%x+) (%x+) (%x+)$')
  return {
    state = state, clean = clean == '1', doubts = tonumber(doubts), till = tonumber(till),
    owner = owner, number = number, sender = sender
  }
end

local function pack_claim(claim)
  return table.concat({
    claim.state, claim.clean and '1' or '0', claim.doubts, text(claim.till), claim.owner, claim.number, claim.sender
  }, ' ')
end

-- The claims whose retention is not over, by fingerprint. The others count for nothing.
local function read_claims(key)
  local flat, live = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    local claim = unpack_claim(flat[i + 1])
    if now < claim.till then live[flat[i]] = claim end
  end
  return live
end

-- Uses that no new message may have.
local function held(live)
  local count = 0
  for _, claim in pairs(live) do
    if claim.state ~= 'A' then count = count + 1 end
  end
  return count
end

local function has_free_use(row)
  return row.m == '' or row.u < tonumber(row.m)
end
