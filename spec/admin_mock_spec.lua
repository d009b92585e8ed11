-- The control API of a real `moonport mock`.

local host = require("support.host")
local json = require("moonport.json")
local sys = host.sys

local SCRIPT = [[
local mock = require("moonport.mock")
local frame = require("moonport.frame")
local redis = mock.server { "tcp://127.0.0.1:0", name = "redis", frame = frame.line "\r\n" }
redis:on("^PING$", "+PONG\r\n")
redis:otherwise "-ERR\r\n"
]]

local p, admin, path

---A connection to the control API, for any number of requests.
local function client()
  local c = host.connect(admin)
  local M = {}
  function M.send(_, method, where, body)
    body = body and json.encode(body) or ""
    assert(c:send(("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      .. "Content-Length: %d\r\n\r\n%s"):format(method, where, #body, body)))
  end
  function M.receive()
    local status, length = tonumber(((c:line() or "no reply"):match("^HTTP/1%.1 (%d+) "))), 0
    for line in function() return c:line() end do
      length = tonumber(line:match("^Content%-Length: (%d+)") or length)
      if line == "\r" then break end
    end
    local text = assert(c:receive(length))
    return status, text ~= "" and json.decode(text) or nil
  end
  function M:ask(...)
    self:send(...)
    return self:receive()
  end
  function M.ready(_, seconds) return sys.poll(c.fd, "r", seconds) end
  function M.close() c:close() end
  return setmetatable(M, { __close = M.close })
end

local function start(...)
  path = host.write(SCRIPT)
  p = host.start(path, { command = "mock", listen = "", args = { "--log-level=info", ... } })
  admin = p.ready.admin:gsub("^http", "tcp")
end

describe("the control API of moonport mock", function()
  before_each(function() start("--allow-script-upload") end)
  after_each(host.cleanup)

  it("verifies what a client does meanwhile, and shows it in the journal", function()
    local api <close> = client()
    local c <close> = host.connect(p:url("redis"))
    api:send("POST", "/verify", { server = "redis", match = "^PING$", times = { exactly = 3 }, within = 20000 })
    for _ = 1, 3 do
      assert.is_false((api:ready(0.02)))
      assert(c:send("PING\r\n"))
      assert.are.equal("+PONG\r", c:line())
    end
    local status, r = api:receive()
    assert.are.same({ 200, 3 }, { status, r.count })
    status, r = api:ask("GET", "/journal?server=redis&kind=open,sent&conn=" .. r.records[1].conn)
    assert.are.same({ 200, 4 }, { status, #r.records })
    api:send("GET", "/journal?wait=20s&kind=closed&since=" .. r.next)
    c:finish()
    assert.are.equal("fin", select(2, api:receive()).records[1].detail)
    p:stop()
  end)

  it("says that of a long frame not all is there to be compared", function()
    local api <close> = client()
    local c <close> = host.connect(p:url("redis"))
    local frame = ("x"):rep(70000)
    assert(c:send(frame .. "\r\n"))
    assert.are.equal("-ERR\r", c:line())
    local status, told = api:ask("POST", "/verify", { match = { equals = frame } })
    assert.are.same({ 406, 70000 }, { status, told.near[1].length })
    assert.matches("of its 70000 bytes only the first 65536 are kept$", told.near[1].why)
    p:stop()
  end)

  it("makes nothing whose name no path can have", function()
    local api <close> = client()
    local rule = "must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . and .."
    for _, name in ipairs { "", ".", "..", "a/b", "a\\b", "a\n", ("x"):rep(257) } do
      local status, told = api:ask("POST", "/servers/redis/stubs", { id = name, match = "^A", reply = "x" })
      assert.are.same({ 400, "an id " .. rule }, { status, told.error })
      status, told = api:ask("POST", "/servers/redis/toxics", { name = name, type = "noop" })
      assert.are.equal(400, status)
      assert.truthy(told.error:find(": name " .. rule, 1, true), told.error)
      assert.are.equal(400, (api:ask("POST", "/servers", { toxics = json.array { { name = name, type = "noop" } } })))
    end
    assert.are.equal(0, #select(2, api:ask("GET", "/servers/redis/toxics")).toxics)
    for _, name in ipairs { "...", "a b", "%2e%2f", "\u{1F319}", ("x"):rep(256) } do
      local escaped = name:gsub("[^%w.]", function(c) return ("%%%02x"):format(c:byte()) end)
      assert.are.equal(201, (api:ask("POST", "/servers/redis/stubs", { id = name, match = "^A", reply = "x" })))
      assert.are.equal(204, (api:ask("DELETE", "/servers/redis/stubs/" .. escaped)))
      assert.are.equal(201, (api:ask("POST", "/servers/redis/toxics", { name = name, type = "noop" })))
      assert.are.equal(204, (api:ask("DELETE", "/servers/redis/toxics/" .. escaped)))
    end
    p:stop()
  end)

  it("wakes each of 100 that wait for a frame of their own", function()
    local waiting = {}
    for i = 1, 100 do
      waiting[i] = client()
      waiting[i]:send("POST", "/verify", { match = { equals = "n" .. i }, within = 20000 })
    end
    local c <close> = host.connect(p:url("redis"))
    for i = 100, 1, -1 do
      assert(c:send("n" .. i .. "\r\n"))
      assert.are.equal("-ERR\r", c:line())
      assert.are.equal(200, (waiting[i]:receive()))
      waiting[i]:close()
    end
    p:stop()
  end)

  it("has its clients' waits end with them, and idle ones give way", function()
    local before, clients = p:descriptors(), {}
    for i = 1, 300 do
      clients[i] = client()
      if i % 2 == 0 then
        clients[i]:send("POST", "/verify", { match = "^never$", within = 600000 })
      else
        clients[i]:send("GET", "/journal?wait=60s&kind=failed")
      end
    end
    for _, c in ipairs(clients) do c:close() end
    host.eventually("all descriptors to be closed", function() return p:descriptors() <= before end)
    for i = 1, 600 do clients[i] = client() end
    local api <close> = client()
    assert.are.equal(200, (api:ask("GET", "/health")))
    assert.are.equal(200, (clients[600]:ask("GET", "/health"))) -- the first ones have given way
    assert.is_true(p:descriptors() < before + 300)
    for _, c in ipairs(clients) do c:close() end
    p:stop()
  end)

  it("pushes, and ends connections with FIN or RST", function()
    local api <close> = client()
    for how, ends in pairs { fin = 0, rst = 104 } do
      local c <close> = host.connect(p:url("redis"))
      assert(c:send("PING\r\n"))
      c:line()
      local id = select(2, api:ask("GET", "/connections")).connections[1].id
      assert.are.equal(200, (api:ask("POST", "/connections/" .. id .. "/send", { hex = "00ff0a" })))
      assert.are.equal("\0\255", c:line())
      local told = select(2, api:ask("GET", "/journal?kind=push&conn=" .. id)).records
      assert.are.same({ 1, "redis", "00ff0a" }, { #told, told[1] and told[1].server, told[1] and told[1].data.hex })
      assert.are.equal(204, (api:ask("DELETE", "/connections/" .. id .. "?how=" .. how)))
      local _, _, errno = c:all()
      assert.are.equal(ends, errno or 0, how)
      host.eventually("the connection's end", function()
        return #select(2, api:ask("GET", "/connections")).connections == 0
      end)
    end
    p:stop()
  end)

  it("replaces a script; one that is broken gets 422 with file and line, and the old one stays", function()
    local api <close> = client()
    local c <close> = host.connect(p:url("redis"))
    local status, r = api:ask("PUT", "/servers/redis/script", { script = (SCRIPT:gsub("PONG", "GNOP")) })
    assert.are.same({ 200, 2 }, { status, r.generation })
    local new <close> = host.connect(p:url("redis"))
    assert(new:send("PING\r\n"))
    assert.are.equal("+GNOP\r", new:line())
    status, r = api:ask("PUT", "/servers/redis/script", { script = "x =\n= 1" })
    assert.are.equal(422, status)
    assert.matches(":2: ", r.error)
    assert(c:send("PING\r\n"))
    assert.is_truthy(c:line())
    p:stop()
  end)

  it("torture item 93: 1,000 servers made and taken away by 8 clients; nothing and no port is left", function()
    local before, clients, urls = p:descriptors(), {}, {}
    for i = 1, 8 do clients[i] = client() end
    for k = 1, 125 do
      for i, c in ipairs(clients) do c:send("POST", "/servers", { name = ("m%d-%d"):format(i, k) }) end
      for i, c in ipairs(clients) do
        local status, r = c:receive()
        assert.are.equal(201, status)
        urls[i] = r.url
      end
      if k == 60 then
        assert.are.equal(9, #select(2, clients[1]:ask("GET", "/servers")).servers)
        for _, url in ipairs(urls) do host.connect(url):close() end
      end
      for i, c in ipairs(clients) do
        c:send("DELETE", ("/servers/m%d-%d"):format(i, k)) -- twice: one of them comes too late
        clients[i % 8 + 1]:send("DELETE", ("/servers/m%d-%d"):format(i, k))
      end
      local gone, late = 0, 0
      for _, c in ipairs(clients) do
        for _ = 1, 2 do
          local status = c:receive()
          if status == 204 then gone = gone + 1 elseif status == 404 or status == 409 then late = late + 1 end
        end
      end
      assert.are.same({ 8, 8 }, { gone, late })
      for _, url in ipairs(urls) do assert.has_error(function() host.connect(url) end) end
    end
    local _, r = clients[1]:ask("GET", "/servers")
    assert.are.equal(1, #r.servers)
    for _, c in ipairs(clients) do c:close() end
    host.eventually("all descriptors to be closed", function() return p:descriptors() <= before end)
    p:stop()
  end)

  it("of 8 clients that want the same name one gets it", function()
    local clients = {}
    for i = 1, 8 do clients[i] = client() end
    for _ = 1, 20 do
      local made = 0
      for _, c in ipairs(clients) do c:send("POST", "/servers", { name = "one" }) end
      for _, c in ipairs(clients) do
        local status = c:receive()
        assert.is_true(status == 201 or status == 409, status)
        if status == 201 then made = made + 1 end
      end
      assert.are.equal(1, made)
      assert.are.equal(204, (clients[1]:ask("DELETE", "/servers/one")))
    end
    for _ = 1, 20 do -- to put a stub is no conflict: one adds it, the others replace it
      local added = 0
      for _, c in ipairs(clients) do c:send("PUT", "/servers/redis/stubs/x", { match = "^x$", reply = "y" }) end
      for _, c in ipairs(clients) do
        local status = c:receive()
        assert.is_true(status == 200 or status == 201, status)
        if status == 201 then added = added + 1 end
      end
      assert.are.equal(1, added)
      assert.are.equal(204, (clients[1]:ask("DELETE", "/servers/redis/stubs/x")))
    end
    for _, c in ipairs(clients) do c:send("POST", "/servers") end -- each gets a name that is free
    for _, c in ipairs(clients) do assert.are.equal(201, (c:receive())) end
    for _, c in ipairs(clients) do c:close() end
    p:stop()
  end)
end)
