-- Behind the prelude of scripts that change claims: writes one and lets go of those whose retention is over. The
-- key of all claims of an alias lives as long as the last of them; its end touches no counter.
local function write_claim(key, live, fingerprint, claim)
  live[fingerprint] = claim
  redis.call('HSET', key, fingerprint, pack_claim(claim))
  local last = 0
  for _, one in pairs(live) do
    if one.till > last then last = one.till end
  end
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if not live[name] then redis.call('HDEL', key, name) end
  end
  redis.call('PEXPIREAT', key, text(last))
end
