-- In front of every script that asks for the time. Times are milliseconds. `given`: what is to pass for it (tests give
-- one); otherwise empty, and this server's clock decides.
local function time_now(given)
  local time = tonumber(given)
  if time then return time end
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

-- Lua would write large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end
