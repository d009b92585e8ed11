--- Framings: the frames must not depend on how the bytes were cut, nor on who takes them apart, moonport.frame,
--- rfile or string.unpack. The choice: which framing; its upper bits: whether the payload begins with a
--- length byte and, so long, the delimiter or format.

local frame = require("moonport.frame")

local M = {}

function M.handle() end -- never called

local sub = string.sub

-- Each makes a framing; `given` is a part of the payload.
local MAKERS = {
  [0] = function() return frame.line("\r\n", { max = 24 }) end,
  function() return frame.upto("\r\n.\r\n", { max = 32 }) end,
  function() return frame.upto("aab") end,
  function() return frame.delimiter("\n", { max = 16 }) end,
  function(given) return frame.upto(given, { max = 20 }) end,
  function(given) return frame.delimiter(given) end,
  function(given) return frame.pack(given) end,
  function(given) return frame.pack(given, { max = 24 }) end,
  function() return frame.pack(">s2") end,
  function() return frame.pack("!4 <s1 z Xi4 i2", { max = 40 }) end,
  function() return frame.length { format = ">I2", adjust = -2, strip = true } end,
  function(given)
    local at = { (given .. "\0"):byte(1, 5) }
    return frame.length { format = (at[1] > 99 and ">" or "<") .. ("BbHhI3i3I8j"):match("%a%d?", at[1] % 10 + 1),
      offset = at[2] and at[2] % 8, header = at[3] and at[3] % 24, adjust = at[4] and at[4] - 128,
      strip = at[5] and at[5] % 9, max = 50 }
  end,
  function(given) return frame.fixed(#given) end,
  function() return frame.any() end,
  function()
    return frame.custom(function(buf, pos)
      local n = buf:byte(pos)
      if n > 50 then return nil, nil, "too much" end
      if #buf < pos + n then return nil, n % 2 == 0 and n + 1 or nil end
      return sub(buf, pos + 1, pos + n), pos + n + 1, n
    end, { max = 40 })
  end,
  function(given)
    local hex = frame.hex(given)
    return frame.custom(function(buf, pos)
      local at = buf:find("\n", pos, true)
      if at then
        local line = sub(buf, pos, at - 1)
        return hex.test(line) and "yes" or "no", at + 1
      end
    end)
  end,
}

-- What a constructor says of nonsense.
local REFUSALS = { "^bad pack format", "^pack .*: its frames", "^upto: the delimiter", "^delimiter: the delimiter",
  "^length .*: ", "^fixed: ", "^bad hex .*: column %d+: " }

local function made(choice, given)
  local fine, framing = pcall(MAKERS[choice % 16], given)
  if fine then return framing end
  for _, refusal in ipairs(REFUSALS) do
    if framing:find(refusal) then return nil end
  end
  error("this is no way to refuse: " .. framing)
end

---All that a reader gives: frames and their values, then why, and what is left at the end.
local function all(framing, source, limit)
  local r, out = frame.reader(source), {}
  for i = 1, limit do
    local got, a, b = r:read(framing)
    if not got then
      out[i] = a == "closed" and a .. r:rest() or a
      return table.concat(out, "\0|\0")
    end
    if a ~= nil then got = ("%s %s %s"):format(got, a, b) end
    out[i] = got
  end
  error(framing.name .. " does not end")
end

---Reader:frame gives what Reader:read gives, without the values.
local function check_bare(framing, a, b)
  local r, bare = frame.reader(a), frame.reader(b)
  repeat
    local want, why = r:read(framing)
    local got, reason = bare:frame(framing)
    if want ~= got or not got and why ~= reason then error(framing.name .. ": another frame without its values") end
  until not want
end

---The payload in pieces of a given size.
local function cut(payload, size)
  local at = 1
  return function()
    if at > #payload then return nil, "closed" end
    local piece = sub(payload, at, at + size - 1)
    at = at + size
    return piece
  end
end

local function same(a, b, framing, what)
  if a ~= b then error(("%s %s:\n%s\n%s"):format(framing.name, what, a, b)) end
end

---The next frame by string.unpack: the values, a position; or nothing.
local function unpacked(format, payload, at)
  local got = table.pack(pcall(string.unpack, format, sub(payload, at)))
  return got[1] and got or nil
end

---A pack framing against string.unpack, which sees all bytes at once.
local function check_pack(framing, format, payload)
  local r, at = frame.reader(cut(payload, #payload)), 1
  while true do
    local got = table.pack(r:read(framing))
    local want = unpacked(format, payload, at)
    if not got[1] then
      if got[2] == "closed" and want then error(framing.name .. " misses a frame") end
      return
    end
    if not want then error(framing.name .. " has a frame too many") end
    for i = 2, want.n - 1 do
      local mine = got[framing.values and i or i - 1]
      if mine ~= want[i] and mine == mine then error(framing.name .. " has another value") end
    end
    at = at + want[want.n] - 1
    if framing.values and (got.n ~= want.n - 1 or r:rest() ~= sub(payload, at)) then
      error(framing.name .. " takes other bytes")
    end
  end
end

---The same bytes by rfile, as far as there are frames.
local function check_rfile(framing, kind, given, payload, rfile)
  local r = frame.reader(cut(payload, 7))
  while true do
    local got = table.pack(r:read(framing))
    if not got[1] then return end
    local theirs
    if kind == "pack" then
      theirs = table.pack(rfile:unpack(given))
      for i = 1, theirs.n do
        local mine = got[framing.values and i + 1 or i]
        if mine ~= theirs[i] and mine == mine then error(framing.name .. ": rfile unpacks something else") end
      end
    else
      theirs = rfile:readuntil(given)
      if theirs ~= (kind == "upto" and got[1] .. given or got[1]) then
        error(("%s: rfile reads %q, not %q"):format(framing.name, theirs, got[1]))
      end
    end
  end
end

local KIND = { [4] = "upto", [5] = "delimiter", [6] = "pack", [7] = "pack" }
local expected

function M.run(nth, choice, payload, connection)
  local given = "\n"
  if #payload > 0 then
    local n = payload:byte() % 16
    given, payload = sub(payload, 2, 1 + n), sub(payload, 2 + n)
  end
  local framing = made(choice, given)
  if not framing then return end
  local limit = #payload + 2
  if nth == 1 then
    expected = all(framing, cut(payload, #payload), limit)
    if choice % 16 ~= 13 then -- whatever has come is what was cut
      local size = 1 + #payload % 3
      same(expected, all(framing, cut(payload, size), limit), framing, "in pieces of " .. size)
      if framing.values then check_bare(framing, cut(payload, 4), cut(payload, 5)) end
    end
    if choice % 16 == 6 or choice % 16 == 7 then check_pack(framing, given, payload) end
  end
  local kind = KIND[choice % 16]
  if kind and choice >= 128 then
    local head = connection.rfile:readexactly(#given + 1)
    if not head then return end
    check_rfile(framing, kind, given, payload, connection.rfile)
    return
  end
  local skipped = false
  local function source()
    if not skipped then -- the length byte and what is given
      skipped = true
      local head = connection.rfile:readexactly(#given + 1)
      if not head then return nil, "closed" end
    end
    return connection.request:recv()
  end
  if choice % 16 ~= 13 then same(expected, all(framing, source, limit), framing, "over a connection") end
end

return M
