--- What spec/unit/plain_test.c runs in one Lua state; there is a second one.
--- write(value): its bytes; through(value): what a second state makes of them, written and read once more; read(bytes).

local write, read, through = ...

-- Whether two values are the same: same shape, same bits, same tables shared.
local function same(a, b, pairs_seen)
  if math.type(a) == "float" and math.type(b) == "float" then return string.pack("n", a) == string.pack("n", b) end
  if type(a) ~= "table" or type(b) ~= "table" then return rawequal(a, b) and math.type(a) == math.type(b) end
  if pairs_seen[a] or pairs_seen[b] then return pairs_seen[a] == b and pairs_seen[b] == a end
  pairs_seen[a], pairs_seen[b] = b, a
  local odd = {} -- keys that are tables: looked for one by one
  for k, v in pairs(a) do
    if type(k) == "table" then
      odd[#odd + 1] = k
    elseif not same(v, rawget(b, k), pairs_seen) then
      return false
    end
  end
  for k in pairs(b) do
    if type(k) ~= "table" and rawget(a, k) == nil then return false end
    if type(k) == "table" then
      if #odd ~= 1 or not same(odd[1], k, pairs_seen) or not same(a[odd[1]], b[k], pairs_seen) then return false end
      odd = {}
    end
  end
  return #odd == 0
end

local function check(value)
  local ok, got = pcall(through, value)
  if not ok then error(got, 2) end
  if not same(value, got, {}) then error("came back different: " .. tostring(value) .. " " .. tostring(got), 2) end
end

-- One of each kind, and what is odd among them.
local nan = 0.0 / 0.0
for _, value in ipairs {
  false, true, 0, 1, -1, math.maxinteger, math.mininteger, 0.0, -0.0, 1.5, 1e308, 5e-324, 1 / 0, -1 / 0, nan, -nan, 3.0,
  "", "text", "\0", ("x"):rep(40), ("x"):rep(41), ("\0\255"):rep(70000), {}, { {} }, { 1, 2, 3 }, { [1.5] = "a" },
  { [false] = true, [true] = false, [-0.5] = nan, [""] = "", [("k"):rep(50)] = 1 }, { [{ 1 }] = { 2 } },
} do check(value) end
check(nil)
assert(through(string.unpack("n", string.pack("I8", 0x7ff0000000000001))) ~= 0) -- a NaN of another kind
check((string.unpack("n", string.pack("I8", 0x7ff8000000000123))))

-- What is reached twice is one thing in the copy; and does not double the bytes each time.
local shared = { 7 }
local copy = through({ a = shared, b = { shared }, [shared] = 1 })
assert(copy.a == copy.b[1] and copy[copy.a] == 1 and copy.a[1] == 7)
local double = { "leaf" }
for _ = 1, 90 do double = { double, double } end
assert(#write(double) < 4096)
check(double)
local long = ("long"):rep(10000)
local many = {}
for i = 1, 100 do many[i] = long end
assert(#write(many) < 50000)
check(many)

-- How deep.
local function nested(n)
  local t = {}
  for _ = 2, n do t = { t } end
  return t
end
check(nested(100))

-- What is not plain: the sentence says where.
local plain = " cannot be saved; plain data is nil, booleans, numbers, strings and tables of these"
local function refuses(value, sentence)
  local ok, message = pcall(write, value)
  assert(not ok, "not refused")
  if message ~= sentence .. plain then error("said: " .. tostring(message), 2) end
end
local loop = { here = {} }
loop.here[1] = loop
refuses(print, "a function")
refuses(io.stdout, "a userdata")
refuses({ callbacks = { on_end = print } }, "a function at callbacks.on_end")
refuses({ list = { 1, { co = coroutine.create(print) } } }, "a thread at list[2].co")
refuses({ ["two words"] = { [-1.5] = { [true] = io.stdout } } }, 'a userdata at ["two words"][-1.5][true]')
refuses({ ["a\nb" .. ("c"):rep(50)] = print }, 'a function at ["a?b' .. ("c"):rep(37) .. '..."]')
refuses({ [""] = print }, 'a function at [""]')
refuses({ [print] = 1 }, "a function as a key")
refuses({ a = { b = { [print] = 1 } } }, "a function as a key of a.b")
refuses({ a = { [{ x = print }] = 1 } }, "a function at a[table].x")
refuses({ a = setmetatable({}, {}) }, "a table with a metatable at a")
refuses(setmetatable({}, { __metatable = false, __pairs = error }), "a table with a metatable")
refuses(loop, "a table that is inside itself at here[1]")
refuses({ [loop] = 1 }, "a table that is inside itself at [table].here[1]")
local ok, message = pcall(write, nested(101))
assert(not ok and message:find("^a table inside 100 others at %[1%]%[1%].*%.%.%. cannot be saved;"), message)
assert(#message < 400)

-- Random values.
local kinds
local function any(depth, pool)
  return kinds[math.random(depth > 0 and #kinds or #kinds - 2)](depth, pool)
end
kinds = {
  function() return math.random(0) end,
  function() return math.random(-3, 3) end,
  function() return (string.unpack("n", string.pack("j", math.random(0)))) end,
  function() return math.random(2) == 1 end,
  function() return ("ab\0\n\255"):rep(math.random(0, 20)) end,
  function(depth, pool)
    local t = {}
    for i = 1, math.random(0, 6) do t[i] = any(depth - 1, pool) end
    for _ = 1, math.random(0, 4) do
      local k = any(0, pool)
      if k == k then t[k] = any(depth - 1, pool) end
    end
    pool[#pool + 1] = t
    return t
  end,
  function(_, pool) return pool[math.random(#pool)] end,
}
math.randomseed(42)
for _ = 1, 2000 do check(any(6, { {} })) end

-- Bytes that no write() has made: an error or a value, never a crash.
local sample = write {
  1, 2.5, "short", ("long"):rep(20), { ("long"):rep(20), true, false }, shared, shared, [{ 1 }] = { x = { y = {} } },
}
for n = 0, #sample - 1 do
  local fine, why = pcall(read, sample:sub(1, n))
  assert(not fine and why:find("^malformed plain data"), why)
end
assert(not pcall(read, sample .. "\0"))
for i = 1, #sample do
  for _ = 1, 40 do pcall(read, sample:sub(1, i - 1) .. string.char(math.random(0, 255)) .. sample:sub(i + 1)) end
end
for _ = 1, 20000 do
  local bytes = {}
  for i = 1, math.random(30) do bytes[i] = string.char(math.random(0, 10)) end
  pcall(read, table.concat(bytes))
end
local TABLE, NIL, TRUE, END = sample:sub(1, 1), write(nil), write(true), "\0"
for _, bytes in ipairs {
  TABLE .. NIL .. TRUE .. END, -- a key that is nil
  TABLE .. write(nan) .. TRUE .. END,
  TABLE .. TRUE .. NIL .. END,
  TABLE .. TRUE .. END, -- no value
  (TABLE .. TRUE):rep(101) .. TRUE .. END:rep(101), -- too deep
  write(("l"):rep(41)):sub(1, 1) .. ("\255"):rep(8), -- a length past all memory
  END, "\255", "",
} do
  local fine, why = pcall(read, bytes)
  assert(not fine and why:find("^malformed plain data"), why)
end
assert(pcall(read, (TABLE .. TRUE):rep(100) .. TRUE .. END:rep(100)))
