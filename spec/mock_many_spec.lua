local apis = require("support.api")
local host = require("support.host")
local mocks = require("support.mocks")
local sys = host.sys

-- Mocks in numbers. MOONPORT_MANY=1 has all of them; without it there are a tenth as many.

local MANY = os.getenv("MOONPORT_MANY") == "1" and 10 or 1

local m

local function start(text, ...)
  m = mocks.start(text, { args = { ... } })
  return m
end

local function clients_of(n)
  local list = {}
  for i = 1, n do
    list[i] = apis.connect(m.program)
    list[i]:must("GET", "/health") -- it has been accepted
  end
  return list
end

local function close_all(list)
  for _, one in ipairs(list) do one:close() end
end

-- Whether nobody answers there under this name. Another mock may have been given the port by now.
local function is_gone(url, name)
  local ok, c = pcall(host.connect, url)
  if not ok then return true end
  local _ <close> = c
  return c:ask("who") ~= name
end

describe("200 mocks in one process", function()
  after_each(host.cleanup)

  local EACH = 25 -- of each of 8 clients

  -- One step of a client: what to ask for, and what to do with the answer. `own` are its mocks by name.
  local function step(i, own, turn)
    local names = {}
    for name in pairs(own) do names[#names + 1] = name end
    table.sort(names)
    if #names < EACH and math.random(3) > 1 or #names == 0 then
      local name = ("m%d-%d"):format(i, turn)
      return { "POST", "/servers", { name = name, stubs = { { match = "^who$", reply = name .. "\n" } } } },
        function(status, answer)
          assert.are.equal(201, status)
          own[name] = answer.url
        end
    end
    local name = names[math.random(#names)]
    return { "DELETE", "/servers/" .. name }, function(status)
      assert.are.equal(204, status)
      assert.is_true(is_gone(own[name], name))
      own[name] = nil
    end
  end

  local function answers(url, name)
    local c <close> = host.connect(url)
    return c:ask("who") == name
  end

  it("come and go at random by 8 clients, answer all the while, and leave no port", function()
    math.randomseed(93)
    start [[mock.server { "tcp://127.0.0.1:0", name = "s" }:otherwise("x\n")]]
    local clients, own = clients_of(8), {}
    local before = m.program:descriptors()
    for i = 1, 8 do own[i] = {} end
    for turn = 1, 80 * MANY do
      local done = {}
      for i, api in ipairs(clients) do
        local question
        question, done[i] = step(i, own[i], turn)
        api:send(table.unpack(question))
      end
      for i, api in ipairs(clients) do
        done[i](api:receive())
        local name, url = next(own[i])
        assert.is_true(not name or answers(url, name), name)
      end
    end
    for i, api in ipairs(clients) do -- up to 200
      local n = 0
      for _ in pairs(own[i]) do n = n + 1 end
      for k = n + 1, EACH do
        local name = ("last%d-%d"):format(i, k)
        own[i][name] = api:must("POST", "/servers", { name = name, otherwise = name .. "\n" }).url
      end
    end
    local there = {}
    for _, one in ipairs(own) do
      for name, url in pairs(one) do there[name] = url end
    end
    local listed = clients[1]:must("GET", "/servers").servers
    assert.are.equal(8 * EACH + 2, #listed) -- with s, and the spec's own
    for _, server in ipairs(listed) do
      assert.is_true(not server.api or there[server.name] == server.url)
    end
    for i, one in ipairs(own) do
      for name in pairs(one) do clients[i]:must("DELETE", "/servers/" .. name) end
    end
    for name, url in pairs(there) do assert.is_true(is_gone(url, name)) end
    host.eventually("all descriptors to be closed", function() return m.program:descriptors() <= before end)
    close_all(clients)
    m:stop()
  end)
end)

describe("a journal of very many frames", function()
  after_each(host.cleanup)

  it("stays within its bound, and says what it has dropped", function()
    local frames, bound = 100000 * MANY, 1 << 20
    start([[mock.server { "tcp://127.0.0.1:0", name = "s" }:otherwise(mock.none)]], "--journal=" .. bound)
    local c <close> = m:connect("s")
    assert(c:send("first\n"))
    m:await("s", "received first")
    local before = m.program:memory()
    local lines = ("a frame of a test, of 32 bytes, \n"):rep(1000)
    for _ = 1, frames // 1000 do assert(c:send(lines)) end
    c:finish()
    c:all(60)
    local info = m:ask("return journal.info()")
    assert.are.equal(frames + 1, info.servers.s.received)
    assert.is_true(info.bytes <= bound and info.limit == bound)
    assert.are.equal(info.last, info.dropped + info.records)
    assert.are.equal(info.first, info.dropped + 1)
    if not host.sanitizer() then
      assert.is_true(m.program:memory() - before < 8 * 1024, "KiB: " .. m.program:memory() - before)
    end
    local api <close> = apis.connect(m.program)
    local answer = api:must("GET", "/journal?server=s&kind=received&limit=1")
    assert.is_true(answer.dropped >= info.dropped) -- what was said since then is in it, too
    assert.is_true(answer.records[1].seq > answer.dropped)
    m:stop()
  end)
end)

describe("very many verifies", function()
  after_each(host.cleanup)

  local LINES = [[mock.server { "tcp://127.0.0.1:0", name = "s" }:on("^end", mock.none)]]

  -- What is waited for is the last record of its round: no later one makes up for a wake-up that was missed.
  it("miss no wake-up while traffic runs", function()
    math.randomseed(10)
    start(LINES)
    local clients = clients_of(8)
    local c <close> = m:connect("s")
    for round = 1, 125 * MANY do
      local burst, asked = math.random(20), 0
      local question = { server = "s", match = { equals = "end" .. round }, within = 20000 }
      for i = 1, burst do
        while asked < 8 and math.random(burst) <= 8 do
          asked = asked + 1
          clients[asked]:send("POST", "/verify", question)
        end
        assert(c:send(i < burst and ("frame %d\n"):format(i) or ("end%d\n"):format(round)))
      end
      local sent = sys.now()
      for k = asked + 1, 8 do clients[k]:send("POST", "/verify", question) end
      for _, api in ipairs(clients) do
        local status, answer = api:receive()
        assert.are.same({ 200, 1 }, { status, answer.count })
      end
      assert.is_true(sys.now() - sent < 5) -- the end of `within` is no wake-up
    end
    close_all(clients)
    m:stop()
  end)

  it("cost nothing while they wait", function()
    start(LINES)
    local clients = clients_of(50)
    for i, api in ipairs(clients) do
      api:send("POST", "/verify", { match = { equals = "end" .. i }, within = 60000 })
    end
    local other <close> = apis.connect(m.program)
    other:must("GET", "/health") -- behind theirs
    local share = m.program:idle_share()
    assert.is_true(share < 0.005, share)
    local c <close> = m:connect("s")
    for i, api in ipairs(clients) do
      assert(c:send("end" .. i .. "\n"))
      assert.are.equal(200, (api:receive()))
    end
    close_all(clients)
    m:stop()
  end)
end)
