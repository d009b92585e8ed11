local host = require("support.host")
local mocks = require("support.mocks")

local m

local SCRIPT = [[
local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
s.state.visits = 0
s:on("^(%a+)$", function(c, word) s.state.visits = s.state.visits + 1 return word .. "!\n" end, { id = "word" })
s:on("^1$", { "a\n", "b\n" }, { times = 3 })
s:toxic { name = "own", type = "limit_data", bytes = 1000 }
s:otherwise "?\n"]]

-- Runs an operation; the result, or the refusal's status and message.
local function control(op, data)
  local result, ok = m:run(("return mock.control(%q, %s)"):format(op, data or "nil"))
  if ok then return result end
  assert.is_table(result, tostring(result))
  return result.status, result.message
end

local function ask(...)
  local c <close> = m:connect("s")
  for _, line in ipairs { ... } do c:send(line .. "\n") end
  c:finish()
  return c:all()
end

describe("mock.control", function()
  before_each(function() m = mocks.start(SCRIPT) end)
  after_each(function()
    local ok, why = pcall(m.stop, m)
    host.cleanup()
    assert(ok, why)
  end)

  local function reload(text)
    local before = #m.program:find("reloaded")
    host.write(mocks.script(text), m.path)
    m.program:kill("HUP")
    host.eventually("a reload", function() return #m.program:find("reloaded") > before end)
    m.door:close()
    m.door = nil
  end

  it("describes servers", function()
    local s = control("describe", "{ server = 's' }")
    assert.are.same({ "s", "tcp://127.0.0.1:0", 'line "\\n"', false, "?\n" },
      { s.name, s.url, s.frame, s.session, s.otherwise })
    assert.are.same({ "^(%a+)$", { ["function"] = true }, "word", 0, false },
      { s.stubs[1].match, s.stubs[1].reply, s.stubs[1].id, s.stubs[1].uses, s.stubs[1].api })
    assert.are.same({ "1", { replies = { "a\n", "b\n" } }, 3 }, { s.stubs[2].id, s.stubs[2].reply, s.stubs[2].times })
    assert.truthy(s.stubs[1].where:find("script.lua:3$"), s.stubs[1].where)
    assert.are.equal("own", s.toxics[1].name)
    assert.are.equal(2, #control("describe"))
  end)

  it("describes matchers of functions, however deep they are", function()
    m:ask [[
      require("moonport.mock.registry").get("s"):on({ all = { "^x", function() return true end, mock.hex "78 ..",
        { any = { { ["not"] = function() end }, { pattern = "y" } } } } }, "deep\n", { at = 1 })
    ]]
    local func = { ["function"] = true }
    local want = { all = { "^x", func, { hex = "78 .." }, { any = { { ["not"] = func }, { pattern = "y" } } } } }
    assert.are.same(want, control("stubs", "{ server = 's' }")[1].match)
    assert.are.same(want, control("describe", "{ server = 's' }").stubs[1].match)
    assert.are.same(want, control("match", "{ server = 's', data = 'xy' }").stub.match)
    assert.are.equal("deep\n", ask("xy"))
  end)

  it("adds stubs before the script's, in their order, and takes them away again; ids stay", function()
    assert.are.equal("a1", control("stub_add", "{ server = 's', stub = { match = '^x$', reply = 'X\\n' } }").id)
    control("stub_add", "{ server = 's', stub = { id = 'mine', match = { equals = 'x' }, reply = 'Y\\n' } }")
    assert.are.equal("X\n", ask("x"))
    control("stub_delete", "{ server = 's', id = 'a1' }")
    assert.are.equal("Y\n", ask("x"))
    control("stub_put", "{ server = 's', id = 'mine', stub = { match = '^x$', reply = { fault = 'close' } } }")
    assert.are.equal("", ask("x", "y"))
    control("stub_add", "{ server = 's', at = 1, stub = { match = '^x$', reply = 'first\\n' } }")
    assert.are.equal("first\n", ask("x"))
    local ids = {}
    for i, stub in ipairs(control("stubs", "{ server = 's' }")) do ids[i] = stub.id end
    assert.are.same({ "a2", "mine", "word", "1" }, ids)
  end)

  it("tells one stub, or that there is none", function()
    assert.are.equal("^1$", control("stub", "{ server = 's', id = '1' }").match)
    assert.is_false(control("stub", "{ server = 's', id = '2' }"))
  end)

  it("takes replies as data", function()
    for reply, want in pairs {
      ["'raw'"] = "raw", ["{ replies = { 'one', 'two' } }"] = "one", ["{ delay = 1, reply = 'late' }"] = "late",
      ["{ drip = { size = 2, delay = 1 }, reply = 'drip' }"] = "drip",
      ["{ truncate = 2, how = 'close', reply = 'drip' }"] = "dr", ["{ corrupt = { at = { 1 } }, reply = 'B' }"] = "C",
    } do
      local made = control("stub_add", ("{ server = 's', stub = { match = { all = { { starts_with = 'x' }, "
        .. "{ ['not'] = { contains = 'y' } } } }, reply = %s } }"):format(reply))
      assert.are.equal(want, ask("x"), reply)
      control("stub_delete", ("{ server = 's', id = %q }"):format(made.id))
    end
  end)

  it("refuses what cannot be, and changes nothing", function()
    control("toxic_add", "{ server = 's', toxic = { type = 'noop', stream = 'upstream' } }")
    for call, want in pairs {
      ["'stubs', { server = 'no' }"] = { 404, "there is no mock named no" },
      ["'nothing'"] = { 404, "there is no operation nothing" },
      ["'stub_delete', { server = 's', id = 'x' }"] = { 404, "mock s has no stub x" },
      ["'stub_put', { server = 's', id = 'x', stub = {} }"] = { 404, "mock s has no stub x" },
      ["'stub_add', { server = 's', stub = { id = 'word', match = 'x', reply = 'y' } }"] =
        { 409, "mock s has a stub word already" },
      ["'stub_add', { server = 's', stub = { match = '(', reply = 'y' } }"] =
        { 400, "the pattern \"(\" is malformed: a '(' has no ')'" },
      ["'stub_add', { server = 's', stub = { match = 'P%0', reply = 'y' } }"] =
        { 400, "the pattern \"P%0\" is malformed: '%0' has no capture that ends before it" },
      ["'stub_add', { server = 's', stub = { match = 'x', reply = { delay = 1, truncate = 1, reply = 'ab' } } }"] =
        { 400, "a reply has delay or truncate, not both: put one into the other's reply" },
      ["'stub_add', { server = 's', stub = { match = 'x', reply = { delay = 1, how = 'reset', reply = 'ab' } } }"] =
        { 400, 'a reply with delay has no field "how"' },
      ["'stub_add', { server = 's', stub = { match = 'x', reply = { drip = { sise = 2 }, reply = 'ab' } } }"] =
        { 400, 'drip has no field "sise"' },
      ["'stub_add', { server = 's', stub = { match = 'x', reply = { corrupt = 3, reply = 'ab' } } }"] =
        { 400, "corrupt needs an object" },
      ["'stub_add', { server = 's', stub = { match = 'x', reply = { fault = 'no' } } }"] =
        { 400, 'there is no fault "no"; there are close, none, reset, shutdown, silence and stall' },
      ["'stub_add', { server = 's', stub = { match = 'x', replies = 1 } }"] =
        { 400, 'a stub has no field "replies"; there are id, match, reply, required and times' },
      ["'stub_add', { server = 's', stub = { id = 'a/b', match = 'x', reply = 'y' } }"] =
        { 400, "an id must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . and .." },
      ["'toxic_add', { server = 's', toxic = { name = '..', type = 'noop' } }"] =
        { 400, 'toxic "..": name must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . and ..' },
      ["'toxic_patch', { server = 's', name = 'own', toxic = { name = 'a/b' } }"] =
        { 400, 'toxic "a/b": name must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . and ..' },
      ["'toxic_delete', { server = 's', name = 'x' }"] = { 404, "mock s has no toxic x" },
      ["'toxic_add', { server = 's', toxic = { name = 'own', type = 'timeout' } }"] =
        { 409, "mock s has a toxic own already" },
      ["'toxic_add', { server = 's', toxic = { type = 'noop', stream = 'upstream' } }"] =
        { 409, "mock s has a toxic noop_upstream already" },
      ["'create', { name = 's', url = 'tcp://127.0.0.1:0' }"] = { 409, "there is a mock named s already" },
      ["'state_put', { server = 's', state = 1 }"] = { 400, "a state is an object" },
    } do
      local result, ok = m:run("return mock.control(" .. call .. ")")
      assert.is_false(ok, call)
      assert.are.same(want, { result.status, result.message })
    end
    assert.are.equal(2, #control("stubs", "{ server = 's' }"))
  end)

  it("gives toxics to connections that live, and takes them away", function()
    local c <close> = m:connect("s")
    c:send("abc\n")
    assert.are.equal("abc!", c:line())
    control("toxic_add", "{ server = 's', toxic = { name = 'slow', type = 'latency', latency = 100 } }")
    control("toxic_add", "{ server = 's', toxic = { name = 'up', type = 'latency', stream = 'upstream', "
      .. "latency = 1 } }")
    local t = host.sys.now()
    c:send("abc\n")
    assert.are.equal("abc!", c:line())
    assert.is_true(host.sys.now() - t >= 0.09)
    local slow = control("toxic_patch", "{ server = 's', name = 'slow', toxic = { attributes = { latency = 1 } } }")
    assert.are.same({ jitter = 0, latency = 1 }, slow.attributes)
    control("toxic_delete", "{ server = 's', name = 'own' }")
    assert.are.equal(2, #control("toxics", "{ server = 's' }"))
    c:send("abcd\n")
    assert.are.equal("abcd!", c:line())
    assert.truthy(m:journal("s", "toxic")[1])
  end)

  it("ends connections by toxics: a real reset, and the rest is read no more", function()
    control("toxic_add", "{ server = 's', toxic = { type = 'reset_peer', timeout = 0 } }")
    local c <close> = m:connect("s")
    c:send("abc\n")
    local text, _, errno = c:all()
    assert.are.same({ "", 104 }, { text, errno })
    m:await("s", "closed [reset]")
  end)

  it("makes servers, whose baseline is what they were made of", function()
    control("create", "{ name = 'new', url = 'tcp://127.0.0.1:0', frame = { line = '\\r\\n' }, "
      .. "stubs = { { match = 'x', reply = 'y' } }, otherwise = 'z', toxics = { { type = 'latency', latency = 1 } } }")
    control("stub_add", "{ server = 'new', stub = { match = 'more', reply = 'y' } }")
    local saved = m:ask("local h = require('moonport.mock.handover') local d = h.save() "
      .. "mock.control('delete', { name = 'new' }) h.init({ new = d.new }) return d.new")
    assert.are.equal("z", saved.made.otherwise)
    local new = control("describe", "{ server = 'new' }")
    assert.are.same({ 2, 1, "z", true, 'line "\\r\\n"' },
      { #new.stubs, #new.toxics, new.otherwise, new.api, new.frame })
    control("reset", "{ server = 'new' }")
    assert.are.equal("a1", control("stubs", "{ server = 'new' }")[1].id)
    assert.are.equal(1, #control("stubs", "{ server = 'new' }"))
    control("delete", "{ name = 'new' }")
    assert.are.equal(404, (control("describe", "{ server = 'new' }")))
  end)

  it("shows the state, and sets it", function()
    ask("a", "b")
    assert.are.same({ visits = 2 }, control("state_get", "{ server = 's' }"))
    control("state_put", "{ server = 's', state = { visits = 40, more = { 1 } } }")
    ask("a")
    assert.are.same({ visits = 41, more = { 1 } }, control("state_get", "{ server = 's' }"))
  end)

  it("copes with a state whose tables are reached twice, or are inside themselves", function()
    local state = "require('moonport.mock.registry').get('s').state"
    m:ask(("local s = %s s.a, s.b, s.c = s, s, { s = s, n = 1 } s.d = s.c"):format(state))
    assert.are.same({ visits = 0, c = { n = 1 }, d = { n = 1 } }, control("state_get", "{ server = 's' }"))
    reload(SCRIPT)
    local twice = m:ask(("local s = %s return { s.c == s.d, s.c.n, s.a == nil }"):format(state))
    assert.are.same({ true, 1, true }, twice)
    m:ask(("local t = {} for _ = 1, 50 do t = { t, t } end %s.t = t"):format(state))
    local status, why = control("state_get", "{ server = 's' }")
    assert.are.equal(400, status)
    assert.are.equal("the state of mock s has more than 100000 tables, each counted as often as it is reached: "
      .. "too many to show", why)
    reload(SCRIPT)
    assert.is_true(m:ask(("local t = %s.t return t[1] == t[2]"):format(state)))
    control("reset")
    assert.are.same({ visits = 0 }, control("state_get", "{ server = 's' }"))
  end)

  it("resets to what the script said", function()
    assert.are.equal("a\nb\nb\n?\n", ask("1", "1", "1", "1"))
    control("stub_add", "{ server = 's', stub = { match = '^x$', reply = 'X\\n' } }")
    control("stub_delete", "{ server = 's', id = 'word' }")
    control("state_put", "{ server = 's', state = {} }")
    control("toxic_delete", "{ server = 's', name = 'own' }")
    assert.are.equal("X\n", ask("x"))
    control("reset")
    assert.are.equal("x!\na\nb\nb\n?\n", ask("x", "1", "1", "1", "1"))
    assert.are.same({ visits = 1 }, control("state_get", "{ server = 's' }"))
    assert.are.equal("own", control("toxics", "{ server = 's' }")[1].name)
  end)

  it("keeps the place of the API's stubs when the script is replaced, and how far their sequences are", function()
    for _, stub in ipairs {
      "at = 3, stub = { id = 'end', match = '', reply = { replies = { 'A\\n', 'B\\n', 'C\\n' } } }",
      "at = 2, stub = { id = 'middle', match = '^(%a+)$', reply = 'never\\n' }",
      "stub = { id = 'first', match = '^first$', reply = { replies = { { delay = 1, reply = { replies = "
        .. "{ '1\\n', '2\\n', '3\\n' } } } } } }",
      "at = 2, stub = { id = 'second', match = '^x$', reply = 'X\\n' }",
    } do
      control("stub_add", "{ server = 's', " .. stub .. " }")
    end
    assert.are.equal("A\nB\n1\n2\na\n", ask("--", "--", "first", "first", "1"))
    reload((SCRIPT:gsub("s:toxic", "s:on('^2$', 'new\\n', { id = 'new' })\ns:toxic")))
    assert.are.equal("C\n3\nnew\nC\n", ask("--", "first", "2", "--"))
    local ids = {}
    for i, stub in ipairs(control("stubs", "{ server = 's' }")) do ids[i] = stub.id end
    assert.are.same({ "first", "second", "word", "middle", "1", "new", "end" }, ids)
  end)

  it("keeps what the API has made when the script is replaced, and takes the rest from the new one", function()
    ask("a")
    control("stub_add", "{ server = 's', stub = { id = 'mine', match = '^x$', reply = { replies = { 'X\\n' } }, "
      .. "times = 2 } }")
    control("toxic_add", "{ server = 's', toxic = { name = 'slow', type = 'latency', latency = 1 } }")
    assert.are.equal("X\n", ask("x"))
    local before = m.program:url("s")
    local live <close> = m:connect("s")
    live:send("x1\n")
    assert.are.equal("?", live:line())
    reload((SCRIPT:gsub("!", "?!")))
    assert.are.equal("X\nx?!\n", ask("x", "x"))
    live:send("y\n")
    assert.are.equal("y!", live:line())
    assert.are.equal(before, m.program:url("s"))
    assert.are.same({ visits = 2 }, control("state_get", "{ server = 's' }"))
    assert.are.equal(2, #control("toxics", "{ server = 's' }"))
    assert.truthy(m:journal("s", "open")[3])
    control("reset")
    assert.are.equal("x?!\n", ask("x"))
  end)
end)
