-- The control API in the real program, over a host that is none: spec/fixtures/admin.lua.

local host = require("support.host")
local json = require("moonport.json")
local sys = host.sys

local FIXTURE = "spec/fixtures/admin.lua"
local JSON = "Content-Type: application/json\r\n"
local p, port

local function connect() return host.connect("tcp://127.0.0.1:" .. port) end

---@return table? reply status, headers in lower case, text, json
local function read_reply(c, no_body)
  local status = tonumber(((c:line() or ""):match("^HTTP/1%.1 (%d+) ")))
  if not status then return nil end
  local r = { status = status, headers = {} }
  for line in function() return c:line() end do
    if line == "\r" then break end
    local name, value = line:match("^([^:]+): (.*)\r$")
    r.headers[name:lower()] = value
  end
  local length = tonumber(r.headers["content-length"] or 0)
  r.size = length
  r.text = no_body and "" or assert(c:receive(length))
  if r.headers["content-type"] == "application/json" then r.json = json.decode(r.text) end
  return r
end

---A request on a connection of its own. The body: a table is JSON, a string is as it is.
local function ask(method, path, body, headers)
  local c <close> = connect()
  headers = headers or ""
  if type(body) == "table" then body, headers = json.encode(body), headers .. JSON end
  if not headers:find("^Host:") then headers = ("Host: 127.0.0.1:%d\r\n"):format(port) .. headers end
  if body then headers = headers .. "Content-Length: " .. #body .. "\r\n" end
  assert(c:send(("%s %s HTTP/1.1\r\n%s\r\n%s"):format(method, path, headers, body or "")))
  return assert(read_reply(c, method == "HEAD"))
end

local function start(env, args)
  p = host.start(FIXTURE, { env = env, args = args })
  port = math.tointeger(p.ready.servers.admin.port)
end

local function stop()
  p:stop()
  host.cleanup()
end

-- What is refused closes the connection, and nothing has run: the journal's end says so.
local function last() return #ask("GET", "/journal").json.records end

describe("the control API", function()
  setup(function() start() end)
  teardown(stop)

  describe("answers", function()
    it("an index, health, version", function()
      local index = ask("GET", "/").json.routes
      assert.is_true(#index > 25)
      assert.are.same({ status = "ok" }, ask("GET", "/health").json)
      assert.are.equal("0.test", ask("GET", "/version").json.version)
    end)

    it("an error with as much of a name as can be read", function()
      local r = ask("POST", "/reset", { server = ("a"):rep(1 << 20) })
      assert.are.equal(404, r.status)
      assert.is_true(r.size < 20000, r.size)
    end)

    it("HEAD with the length of GET's body, and without it", function()
      local head, get = ask("HEAD", "/health"), ask("GET", "/health")
      assert.are.equal(get.size, head.size)
      assert.are.equal("", head.text)
    end)

    it("metrics with help, type and escaped labels", function()
      local r = ask("GET", "/metrics")
      assert.matches("^text/plain; version=0%.0%.4", r.headers["content-type"])
      assert.matches('# HELP moonport_requests_total [^\n]+\n# TYPE moonport_requests_total counter\n'
        .. 'moonport_requests_total{server="redis"} 3\n', r.text)
      assert.is_truthy(r.text:find('moonport_journal_events_total{server="we\\"ird\\n",kind="received"} 2\n', 1, true))
      for line in r.text:gmatch("[^\n]+") do
        assert.is_truthy(line:find("^# HELP moonport_[%w_]+ .+%.$") or line:find("^# TYPE moonport_[%w_]+ %l+$")
          or line:find("^moonport_[%w_]+{?.-}? %-?[%d.e+]+$"), line)
      end
    end)

    it("several requests on a connection, pipelined", function()
      local c <close> = connect()
      assert(c:send(("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):rep(5)))
      for _ = 1, 5 do assert.are.equal(200, read_reply(c).status) end
    end)

    it("404 with what is near, 405 with what is allowed, for the query as well", function()
      local r = ask("GET", "/servers/redsi")
      assert.are.same({ 404, 'there is no server "redsi"; did you mean "redis"?' }, { r.status, r.json.error })
      assert.matches('did you mean "/servers"%?', ask("GET", "/server").json.error)
      r = ask("POST", "/health", {})
      assert.are.same({ 405, "GET, HEAD" }, { r.status, r.headers.allow })
      assert.are.equal(405, ask("OPTIONS", "/servers").status)
      assert.matches('did you mean "since"%?', ask("GET", "/journal?sinse=1").json.error)
      assert.are.equal(400, ask("GET", "/journal?since=1&since=2").status)
      assert.are.equal(400, ask("GET", "/journal?since=%zz").status)
    end)

    it("400 to what is no JSON, or too deep, or too big a number", function()
      for _, body in ipairs { "{", "[]", "1", "null", '{"name":1e999}', '{"name":99999999999999999999}',
        '{"a":' .. ("["):rep(1000) .. ("]"):rep(1000) .. "}", '{"name":"\255"}', '{"nmae":"x"}' } do
        local r = ask("POST", "/servers", body, JSON)
        assert.are.equal(400, r.status, body)
        assert.is_string(r.json.error)
      end
    end)
  end)

  describe("servers", function()
    it("are made, shown, switched off and taken away", function()
      local r = ask("POST", "/servers", { name = "a", stubs = json.array { { id = "x", match = "^a$", reply = "b" } } })
      assert.are.same({ 201, "/servers/a", true }, { r.status, r.headers.location, r.json.api })
      assert.are.equal(409, ask("POST", "/servers", { name = "a" }).status)
      assert.are.equal("x", ask("GET", "/servers/a").json.stubs[1].id)
      assert.is_false(ask("PATCH", "/servers/a", { enabled = false }).json.enabled)
      assert.are.equal(400, ask("PATCH", "/servers/a", { enabled = 1 }).status)
      r = ask("DELETE", "/servers/a")
      assert.are.same({ 204, "" }, { r.status, r.text })
      assert.are.equal(404, ask("DELETE", "/servers/a").status)
    end)

    it("have names that are given, or free ones", function()
      local one, two = ask("POST", "/servers", {}).json.name, ask("POST", "/servers", {}).json.name
      assert.are.same({ "mock", "mock-2" }, { one, two })
      for _, name in ipairs { one, two } do ask("DELETE", "/servers/" .. name) end
      for _, name in ipairs { "", "a b", "a/b", "../x", ".x", ("x"):rep(101), "a\0", 5 } do
        assert.are.equal(400, ask("POST", "/servers", { name = name }).status)
      end
    end)

    it("that cannot listen leave nothing behind", function()
      local r = ask("POST", "/servers", { name = "low", url = "tcp://127.0.0.1:1" })
      assert.are.same({ 409, "tcp://127.0.0.1:1: Permission denied" }, { r.status, r.json.error })
      assert.are.equal(404, ask("GET", "/servers/low").status)
    end)

    it("of scripts stay, reload, and take a new script only where that is allowed", function()
      assert.are.equal(409, ask("DELETE", "/servers/redis").status)
      assert.are.same({ generation = 2 }, ask("POST", "/servers/redis/reload").json)
      assert.are.equal(403, ask("PUT", "/servers/redis/script", { script = "x" }).status)
      assert.are.equal(403, ask("PUT", "/servers/redis/script", "x", "Content-Type: text/x-lua\r\n").status)
      assert.are.equal(415, ask("PUT", "/servers/redis/state", "x", "Content-Type: text/x-lua\r\n").status)
    end)

    it("have stubs with ids, bytes exact", function()
      local path = "/servers/redis/stubs"
      local list = ask("GET", path).json.stubs
      assert.are.same({ { id = "ping", match = "^PING$", reply = { text = "+PONG\r\n" } },
        { id = "bin", match = { equals = { hex = "00ff" } },
          reply = { replies = { { text = "a" }, { fault = "reset" } } } } }, json.plain(list))
      local stub = { id = "b64", at = 1, match = { starts_with = { base64 = "AP8=" } }, reply = { hex = "00 01ff" } }
      local r = ask("POST", path, stub)
      assert.are.equal(201, r.status)
      assert.are.same({ hex = "0001ff" }, r.json.reply)
      assert.are.equal(409, ask("POST", path, stub).status)
      assert.are.equal("b64", ask("GET", path).json.stubs[1].id)
      r = ask("PUT", path .. "/ping", { match = "^P", reply = { delay = 5, reply = { text = "x" } } })
      assert.are.same({ delay = 5, reply = { text = "x" } }, r.json.reply)
      assert.are.equal(201, ask("PUT", path .. "/new", { match = "n", reply = "" }).status)
      assert.are.equal(204, ask("DELETE", path .. "/new").status)
      assert.are.equal(200, ask("GET", path .. "/ping").status)
      local listed = tonumber(ask("GET", "/metrics").text:match("moonport_errors_total{server=\"redis\"} (%d+)"))
      assert.are.equal(2, listed, "one stub must not cost a copy of all") -- by GET .../stubs
      r = ask("GET", path .. "/pnig")
      assert.are.same({ 404, 'redis has no stub "pnig"; did you mean "ping"?' }, { r.status, r.json.error })
      for _, bad in ipairs { {}, { match = "x" }, { match = 5, reply = "x" }, { match = "x", reply = { hex = "0" } },
        { match = "x", reply = { base64 = "AA" } }, { match = "x", reply = "y", rqeuired = true },
        { match = { equals = 5 }, reply = "x" }, { match = { text = "a", equals = "b" }, reply = "x" },
        { match = "x", reply = "y", required = "yes" } } do
        assert.are.equal(400, ask("POST", path, bad).status, json.encode(bad))
      end
    end)

    it("have toxics in Toxiproxy's JSON", function()
      local path = "/servers/redis/toxics"
      assert.are.equal('{"toxics":[]}\n', ask("GET", path).text)
      local r = ask("POST", path, { type = "latency", attributes = { latency = 10, jitter = 0 } })
      assert.are.same({ 201, "latency_downstream" }, { r.status, r.json.name })
      assert.are.equal(409, ask("POST", path, { name = "latency_downstream", type = "latency" }).status)
      for _, method in ipairs { "POST", "PATCH" } do
        r = ask(method, path .. "/latency_downstream", { attributes = { latency = 20 } })
        assert.are.same({ latency = 20, jitter = 0 }, r.json.attributes)
      end
      for _, list in ipairs { { type = "latency" }, json.array { json.null }, json.array { "latency" }, "latency" } do
        assert.are.equal(400, ask("POST", "/servers", { name = "t", toxics = list }).status, json.encode(list))
      end
      r = ask("POST", path, { type = "latecny" })
      assert.are.same({ 400, 'toxic: there is no type "latecny"' }, { r.status, r.json.error })
      assert.are.equal(204, ask("DELETE", path .. "/latency_downstream").status)
      assert.are.equal(404, ask("DELETE", path .. "/latency_downstream").status)
    end)

    it("have state that comes and goes", function()
      assert.are.same({ n = 1, list = {}, bin = { hex = "ff" } }, ask("GET", "/servers/redis/state").json)
      local state = { a = { 1, 2.5, { b = "\u{1F319}" } }, bin = { hex = "00ff" } }
      assert.are.same(state, json.plain(ask("PUT", "/servers/redis/state", state).json))
    end)

    it("refuse a state that no table of Lua can be", function()
      for _, state in ipairs { json.array { 1, 2 }, json.array {}, 5, "x", { hex = "00" } } do
        local r = ask("POST", "/servers", { name = "t", state = state })
        assert.are.same({ 400, "state must be an object" }, { r.status, r.json.error })
      end
      assert.are.equal(400, ask("PUT", "/servers/redis/state", json.array { 1 }).status)
      local holed = { a = json.array { { b = json.array { 1, json.null, 2 } } } }
      local why = "state.a[1].b[2]: a list of a state cannot hold null, nor can a list of Lua"
      for _, r in ipairs { ask("PUT", "/servers/redis/state", holed), ask("POST", "/servers", { state = holed }) } do
        assert.are.same({ 400, why }, { r.status, r.json.error })
      end
      local r = ask("PUT", "/servers/redis/state", { none = json.null, yes = true, list = json.array {} })
      assert.are.equal('{"list":{},"yes":true}\n', r.text) -- as docs/control-api.md says
    end)

    it("tell what they would answer, and what is connected", function()
      assert.are.equal("ping", ask("POST", "/match", { server = "redis", data = "PING" }).json.stub.id)
      local r = ask("POST", "/match", { server = "redis", data = { hex = "00" } })
      assert.are.equal('{"matched":false,"near_misses":[],"otherwise":{"hex":"00"}}\n', r.text)
      local c = ask("GET", "/connections").json.connections[1]
      assert.are.same({ 1, "redis", "127.0.0.1:5" }, { c.id, c.server, c.client })
      assert.are.same({ sent = 2 }, ask("POST", "/connections/1/send", { data = { hex = "00ff" } }).json)
      assert.are.equal(404, ask("POST", "/connections/2/send", { data = "x" }).status)
      assert.are.equal(400, ask("POST", "/connections/x/send", { data = "x" }).status)
      assert.are.equal(204, ask("DELETE", "/connections/1?how=rst").status)
      assert.are.equal(400, ask("DELETE", "/connections/1?how=nicely").status)
    end)
  end)

  -- Things happen when a spec pushes.
  local function push(text) return ask("POST", "/connections/1/send", { data = text }) end

  ---Sends the request, and gives a function that reads the reply.
  local function begin(method, path, body)
    local c = connect()
    body = body and json.encode(body) or ""
    assert(c:send(("%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s"):format(method, path, JSON,
      #body, body)))
    return function(seconds)
      local ready = sys.poll(c.fd, "r", seconds or host.LIMIT)
      if not ready then return nil end
      local r = read_reply(c)
      c:close()
      return r
    end
  end

  describe("the journal", function()
    before_each(function() assert.are.equal(200, ask("POST", "/reset").status) end)

    it("gives records past a number, of a kind, server, connection", function()
      local since = ask("POST", "/reset").json.since
      push("a\0")
      push("b")
      ask("DELETE", "/connections/1")
      local r = ask("GET", "/journal?since=" .. since).json
      assert.are.same({ since + 3, 3, 0 }, { r.next, #r.records, r.dropped })
      assert.are.same({ hex = "6100" }, r.records[1].data)
      assert.are.same({ seq = since + 2, kind = "received", server = "redis", conn = 1, time = 1.5,
        data = { text = "b" } }, r.records[2])
      local one = ask("GET", "/journal?limit=1&since=" .. since).json
      assert.are.same({ since + 1, 1 }, { one.next, #one.records })
      assert.are.equal(1, #ask("GET", "/journal?kind=closed,sent").json.records)
      assert.are.equal(0, #ask("GET", "/journal?conn=2").json.records)
      assert.are.equal('{"dropped":0,"next":' .. since + 3 .. ',"records":[]}\n',
        ask("GET", "/journal?server=we%22ird%0a").text) -- one that was there
      assert.are.equal(3, #ask("GET", "/journal?server=redis&since=" .. since).json.records)
      r = ask("GET", "/journal?server=redsi")
      assert.are.same({ 404, 'there is no server "redsi"; did you mean "redis"?' }, { r.status, r.json.error })
      assert.are.equal(204, ask("DELETE", "/journal").status)
      assert.are.equal(0, #ask("GET", "/journal").json.records)
      for _, query in ipairs { "kind=recieved", "since=-1", "since=x", "limit=1e3", "wait=soon", "wait=2m",
        "conn=+1" } do
        assert.are.equal(400, ask("GET", "/journal?" .. query).status, query)
      end
      for _, wait in ipairs { "5", "60.1s", "60001ms", "99s" } do
        r = ask("GET", "/journal?since=999&wait=" .. wait)
        assert.are.same({ 400, 'wait must be a time such as "2s" or "500ms", at most 60 s' },
          { r.status, r.json.error })
      end
    end)

    it("goes on behind what it has looked at, whatever comes before it answers", function()
      local newest = 3
      local fake = { mask = function() return 1 end, info = function() return { dropped = 0 } end }
      function fake.next() return nil, newest end
      function fake.last() return newest + 1 end -- as after the end of a slice, in which another has added one
      local fakes, get = { ["moonport.journal"] = fake, moonport = { monotonic = function() return 0 end },
        ["moonport.admin.mocks"] = {} }, nil
      local real = {}
      for name, one in pairs(fakes) do real[name], package.loaded[name] = package.loaded[name] or false, one end
      package.loaded["moonport.admin.journal"] = nil
      require("moonport.admin.journal").routes { add = function(_, method, _, _, run)
        get = method == "GET" and run or get
      end }
      for name, one in pairs(real) do package.loaded[name] = one or nil end
      package.loaded["moonport.admin.journal"] = nil
      assert.are.equal(newest, get({ req = {} }).next)
    end)

    it("waits for the first that fits, and no longer than it was told", function()
      local since = ask("POST", "/reset").json.since
      local reply = begin("GET", "/journal?kind=closed&wait=30s&since=" .. since)
      push("a")
      assert.is_nil(reply(0.1))
      ask("DELETE", "/connections/1")
      assert.are.equal("closed", reply().json.records[1].kind)
      assert.are.equal(since + 2, ask("GET", "/journal?wait=20ms&since=" .. since + 2).json.next)
    end)
  end)

  describe("verify", function()
    before_each(function() assert.are.equal(200, ask("POST", "/reset").status) end)
    local function verify(spec)
      local r = ask("POST", "/verify", spec)
      return r.status, r.json
    end

    it("counts", function()
      for _, text in ipairs { "one", "two", "tree" } do push(text) end
      assert.are.equal(200, (verify { match = "^t" }))
      for _, case in ipairs {
        { 200, { exactly = 2 } }, { 406, { exactly = 1 } }, { 406, { exactly = 3 } }, { 200, { atLeast = 2 } },
        { 406, { atLeast = 3 } }, { 200, { atMost = 2 } }, { 406, { atMost = 1 } },
        { 200, { atLeast = 1, atMost = 2 } },
      } do
        local status, r = verify { server = "redis", match = "^t", times = case[2] }
        assert.are.same({ case[1], case[1] == 200 and 2 or r.count }, { status, r.count }, json.encode(case[2]))
      end
      assert.are.equal(200, (verify { match = "^x", times = { exactly = 0 } }))
      assert.are.equal(406, (verify { match = "^t", conn = 2 }))
      assert.are.equal(406, (verify { match = "^t", kind = "sent" }))
      assert.are.equal(200, (verify { match = "^t", kind = json.array { "sent", "received" } }))
    end)

    it("answers as soon as it is so", function()
      local reply = begin("POST", "/verify", { match = "^b", times = { exactly = 2 }, within = 30000 })
      push("b1")
      push("a")
      assert.is_nil(reply(0.1))
      push("b2")
      local r = reply()
      assert.are.same({ 200, 2, true }, { r.status, r.json.count, r.json.satisfied })
      assert.are.same({ text = "b2" }, r.json.records[2].data)
    end)

    it("says no at once when there are too many, and at the end when there are too few", function()
      local reply = begin("POST", "/verify", { match = "^b", times = { exactly = 1 }, settle = 30000, within = 30000 })
      push("b1")
      assert.is_nil(reply(0.1))
      push("b2")
      assert.are.same(2, reply().json.count)
      assert.are.equal(406, (verify { match = "^c", within = 20 }))
      assert.are.equal(200, (verify { match = "^b", times = { atMost = 2 }, settle = 20 }))
    end)

    it("looks for an order, with others in between or without", function()
      for _, text in ipairs { "a", "x", "a", "b", "c" } do push(text) end
      assert.are.equal(200, (verify { order = json.array { "x", "b" } }))
      assert.are.equal(406, (verify { order = json.array { "x", "b" }, strict = true }))
      assert.are.equal(200, (verify { order = json.array { "a", "b", "c" }, strict = true }))
      local status, r = verify { order = json.array { "b", "a" } }
      assert.are.same({ 406, 1 }, { status, r.reached })
      local reply = begin("POST", "/verify", { order = json.array { "c", "d" }, within = 30000 })
      assert.is_nil(reply(0.05))
      push("d")
      assert.are.equal(200, reply().status)
    end)

    it("shows what came nearest, and why not", function()
      for _, text in ipairs { "SET b 1", "GET a", "get key", "GET kez" } do push(text) end
      local _, r = verify { match = { equals = "GET key" } }
      assert.are.equal('expected at least 1 of equals "GET key", but got 0', r.error)
      assert.are.same({ text = "get key" }, r.near[1].data)
      assert.are.equal('byte 1: expected "GET key", got "get key" (upper and lower case differ)', r.near[1].why)
      assert.are.equal('byte 7: expected "y", got "z"', r.near[2].why)
      assert.matches('expected  equals "GET key"\n', r.near[1].diff)
    end)

    it("refuses what it does not understand", function()
      for _, spec in ipairs { {}, { match = "x", order = json.array { "x" } }, { match = 5 },
        { match = { eqals = "x" } },
        { match = "x", times = { atleast = 1 } }, { match = "x", times = { exactly = -1 } },
        { match = "x", times = { exactly = 1.5 } }, { match = "x", times = { atLeast = 2, atMost = 1 } },
        { match = "x", within = "2s" }, { match = "x", within = -1 }, { match = "x", kind = "recieved" },
        { order = json.array {} }, { order = "x" }, { match = "x", wihtin = 5 },
        { match = "x", kind = json.array {} }, { match = "x", kind = json.array { "received", 5 } },
        { match = "x", kind = { a = "received" } }, { match = "x", conn = false }, { match = "x", since = false },
        { order = json.array { "x" }, strict = "no" }, { order = json.array { "x" }, strict = 0 },
        { match = "x", strict = true },
        { order = json.array { { match = "x", sever = "redis" } } },
        { order = json.array { { match = "x", server = 5 } } },
      } do
        assert.are.equal(400, (verify(spec)), json.encode(spec))
      end
      assert.are.equal(404, (verify { match = "x", server = "redsi" }))
      assert.are.equal(404, (verify { order = json.array { { match = "x", server = "redsi" } } }))
      assert.are.equal(406, (verify { order = json.array { { match = "none", server = json.null } } }))
      for _, kind in ipairs { "", ",", "recieved" } do
        assert.are.equal(400, ask("GET", "/journal?kind=" .. kind).status)
      end
    end)
  end)

  describe("torture item", function()
    -- All of what a connection gets for these bytes, which must end it.
    local function refused(input)
      local c <close> = connect()
      local before = last()
      assert(c:send(input))
      local r = read_reply(c)
      assert.is_truthy(r, "no reply to " .. input:sub(1, 200))
      assert.are.equal("close", r.headers.connection)
      assert.are.equal("", (c:all()))
      assert.are.equal(before, last())
      return r.status
    end
    local body = '{"data":"evil"}'
    local function post(headers, text)
      return "POST /connections/1/send HTTP/1.1\r\nHost: localhost\r\n" .. JSON .. headers .. "\r\n" .. (text or body)
    end

    it("87: requests that two readers read differently get 400 and an end", function()
      for _, headers in ipairs {
        "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 15\r\nContent-Length: 15\r\n",
        "Content-Length: +15\r\n", "Content-Length: 0xf\r\n", "Content-Length: 15\r\nX: a\r\n b\r\n",
        "Content-Length: 15\nX: a\r\n", "Content-Length: 15\r\nX: \0\r\n", "Content-Length : 15\r\n",
      } do
        assert.are.equal(400, refused(post(headers)), headers)
      end
      assert.are.equal(400, refused(post("Transfer-Encoding: chunked\r\n",
        "f;" .. ("x"):rep(10000) .. "\r\n" .. body .. "\r\n0\r\n\r\n")))
    end)

    it("88: another Host gets 421", function()
      for _, name in ipairs { "evil.com", "10.0.2.555", "0177.0.0.1", "127.1", "2130706433", "0x7f.0.0.1",
        "127.0.0.1.evil.com", "localhost.evil.com", "localhost.", "127.0.0.1:1", "localhost:", "[::1", "[::0:1]",
        "[0:0:0:0:0:0:0:1]", "other.test", "mocks.test:80", "0.0.0.0", "127.0.0.1:0" .. port, "127.0.0.2", "" } do
        local r = ask("POST", "/connections/1/send", body, "Host: " .. name .. "\r\n" .. JSON)
        assert.is_true(r.status == 421 or r.status == 400 and name == "[::1", name .. " " .. r.status)
        r = ask("GET", ("http://%s/health"):format(name == "" and "x" or name), nil, "Host: localhost\r\n")
        assert.is_true(r.status == 421 or r.status == 400 and name == "[::1", name .. " " .. r.status)
      end
      for _, name in ipairs { "127.0.0.1", "LocalHost", "[::1]", "mocks.test", "mocks.test:" .. port, "other.test:1234",
        "127.0.0.1:" .. port, "localhost:" .. port, "[::1]:" .. port } do
        assert.are.equal(200, ask("GET", "/health", nil, "Host: " .. name .. "\r\n").status, name)
      end
      assert.are.equal(421, refused("GET /health HTTP/1.0\r\n\r\n"))
    end)

    it("89: no page of elsewhere runs anything", function()
      local before = last()
      local own = "http://127.0.0.1:" .. port
      for _, origin in ipairs { "http://evil.com", "null", "http://127.0.0.1", "http://localhost:1", own .. ".evil.com",
        "https://127.0.0.1:" .. port, "file://", "", own .. ", " .. own, "http://evil.com@127.0.0.1:" .. port } do
        for _, method in ipairs { "POST", "GET", "OPTIONS" } do
          local r = ask(method, "/connections/1/send", body, JSON .. "Origin: " .. origin .. "\r\n")
          assert.are.equal(403, r.status, origin)
          for name in pairs(r.headers) do assert.is_nil(name:find("^access%-control")) end
        end
      end
      for _, kind in ipairs { "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "text/plain; application/json", "application/json, text/plain", "application/jsonx",
        "application/json; charset=latin1" } do
        local r = ask("POST", "/connections/1/send", body, "Content-Type: " .. kind .. "\r\n")
        assert.are.equal(415, r.status, kind)
      end
      assert.are.equal(415, ask("POST", "/connections/1/send", body).status)
      for _, site in ipairs { "cross-site", "same-site" } do
        assert.are.equal(403, ask("GET", "/servers", nil, "Sec-Fetch-Site: " .. site .. "\r\n").status)
      end
      assert.are.equal(before, last())
      local page = "Origin: " .. own .. "\r\nSec-Fetch-Site: same-origin\r\n"
      assert.are.equal(200, ask("GET", "/servers", nil, page).status)
      local utf8 = "Content-Type: application/json; charset=UTF-8\r\n"
      assert.are.equal(200, ask("POST", "/match", '{"server":"redis","data":"x"}', utf8).status)
    end)

    it("91: what is too long or too slow gets 413, 414, 431, 408", function()
      assert.are.equal(413, refused(post("Content-Length: 4194305\r\n", "")))
      assert.are.equal(413, refused(post("Content-Length: 4194305\r\nExpect: 100-continue\r\n", "")))
      assert.are.equal(413, refused(post("Transfer-Encoding: chunked\r\n", "400001\r\n")))
      assert.are.equal(431, refused(post("X: " .. ("x"):rep(9000) .. "\r\n")))
      assert.are.equal(431, refused(post(("X: y\r\n"):rep(101))))
      assert.are.equal(431, refused(post(("X: " .. ("y"):rep(999) .. "\r\n"):rep(17))))
      assert.are.equal(414, refused("GET /" .. ("x"):rep(9000) .. " HTTP/1.1\r\n\r\n"))
      -- A reply that was sent arrives, although much of the body comes after it.
      local c <close> = connect()
      assert(c:send(post("Content-Length: 5000000\r\n", ("x"):rep(300000))))
      assert.are.equal(413, read_reply(c).status)
    end)

    it("92: names in paths name nothing on disk", function()
      local before = last()
      for _, name in ipairs { "..", "%2e%2e", "%2E.", ".", "%2f", "..%2f..%2fetc%2fpasswd", "%00", "a%00b", "%0a",
        "%7f", "a%5cb", "%", "%2", "%zz", "%ff", "%c0%ae%c0%ae", ("x"):rep(257) } do
        for _, path in ipairs { "/servers/%s", "/servers/%s/script", "/servers/redis/stubs/%s" } do
          local r = ask("DELETE", (path:gsub("%%s", function() return name end)))
          assert.is_true(r.status == 400 or r.status == 405 and path:find("script"), name .. " " .. r.status)
        end
      end
      for _, path in ipairs { "/servers/../health", "/../../etc/passwd", "//etc/passwd", "/servers//stubs" } do
        assert.are.equal(400, ask("GET", path).status, path)
      end
      assert.are.equal(404, ask("GET", "/servers/%252e%252e").status) -- decoded once
      assert.are.equal(before, last())
    end)

    it("93: made and taken away by 8 clients at once, 1,000 in all, nothing is left", function()
      local clients, n = {}, 125
      for i = 1, 8 do clients[i] = connect() end
      for k = 1, n do
        for i, c in ipairs(clients) do
          local text = json.encode { name = ("m%d-%d"):format(i, k) }
          assert(c:send(("POST /servers HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s"
            .. "POST /servers HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: 14\r\n\r\n{\"name\":\"one\"}"
            .. "DELETE /servers/m%d-%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .. "DELETE /servers/one HTTP/1.1\r\nHost: localhost\r\n\r\n"):format(JSON, #text, text, JSON, i, k)))
        end
        for _, c in ipairs(clients) do
          assert.are.equal(201, read_reply(c).status)
          local status = read_reply(c).status
          assert.is_true(status == 201 or status == 409, status)
          assert.are.equal(204, read_reply(c).status)
          status = read_reply(c).status
          assert.is_true(status == 204 or status == 404 or status == 409, status)
        end
      end
      for _, c in ipairs(clients) do c:close() end
      local list = ask("GET", "/servers").json.servers
      assert.are.same({ "redis" }, { list[1].name, list[2] and list[2].name })
    end)
  end)
end)

describe("the control API with a token", function()
  setup(function() start { "ADMIN_TOKEN=s3cret", "ADMIN_UPLOAD=1" } end)
  teardown(stop)

  it("torture item 90: without the token nothing runs, little is read and little is said", function()
    for _, given in ipairs { "", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cretx", "Bearer S3CRET", "Basic s3cret",
      "s3cret", "Bearer s3cret s3cret", "Bearer s3cret, Bearer s3cret" } do
      for _, path in ipairs { "/", "/health", "/nothing", "/servers/..", "/servers/redis/script" } do
        local c <close> = connect()
        assert(c:send(("PUT %s HTTP/1.1\r\nHost: localhost\r\n%sAuthorization: %s\r\nContent-Length: 4000000\r\n\r\n{")
          :format(path, JSON, given)))
        local head = c:all()
        assert.matches("^HTTP/1.1 401 ", head)
        assert.matches("\r\nWWW%-Authenticate: Bearer ", head)
        assert.is_true(#head <= 1024, #head)
      end
    end
    local c <close> = connect()
    assert(c:send("GET / HTTP/1.1\r\n" .. ("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"):rep(90)))
    c:send(("Y: " .. ("z"):rep(8000) .. "\r\n"):rep(3))
    local reply = c:all()
    assert.matches("^HTTP/1.1 431 ", reply)
    assert.is_true(#reply <= 1024, #reply)
  end)

  it("answers with it, in any case of the scheme", function()
    for _, scheme in ipairs { "Bearer", "bearer", "BEARER " } do
      assert.are.equal(200, ask("GET", "/health", nil, "Authorization: " .. scheme .. " s3cret\r\n").status)
    end
  end)

  it("takes scripts where that is allowed; 422 names file and line", function()
    local token = "Authorization: Bearer s3cret\r\n"
    local path = "/servers/redis/script"
    assert.are.same({ generation = 2 }, ask("PUT", path, { script = "return {}" }, token).json)
    assert.are.same({ generation = 2 }, ask("PUT", path, "return {}", token .. "Content-Type: text/x-lua\r\n").json)
    local r = ask("PUT", path, { script = "broken" }, token)
    assert.are.same({ 422, "redis.lua:1: syntax error near 'broken'" }, { r.status, r.json.error })
    assert.are.equal(400, ask("PUT", path, { scirpt = "x" }, token).status)
  end)
end)

describe("the control API in a hurry", function()
  setup(function() start { "ADMIN_HURRY=0.2" } end)
  teardown(stop)

  it("torture item 91: heads and bodies that drip get 408", function()
    for _, head in ipairs { "GET / HTTP/1.1\r\n", "POST /reset HTTP/1.1\r\nHost: localhost\r\n" .. JSON
      .. "Content-Length: 1000\r\n\r\n" } do
      local c <close> = connect()
      assert(c:send(head))
      host.eventually("the end of patience", function()
        c:send("x")
        return sys.poll(c.fd, "r", 0.05)
      end)
      local r = read_reply(c)
      assert.are.same({ 408, "close" }, { r.status, r.headers.connection })
    end
  end)
end)

describe("the control API that stops", function()
  after_each(host.cleanup)

  it("ends long polls at once", function()
    start()
    local polls = {}
    for i, request in ipairs { "GET /journal?wait=60s&since=999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "POST /verify HTTP/1.1\r\nHost: localhost\r\n" .. JSON .. "Content-Length: 30\r\n\r\n"
        .. '{"match":"^no$","within":60000}' } do
      polls[i] = connect()
      assert(polls[i]:send((request:gsub("30\r", "31\r"))))
    end
    ask("GET", "/health") -- both have been read by then
    local began = sys.now()
    p:kill("TERM")
    for _, c in ipairs(polls) do
      local r = read_reply(c)
      assert.are.same({ 503, "close" }, { r.status, r.headers.connection })
      c:close()
    end
    assert.are.equal(0, p:wait())
    assert.is_true(sys.now() - began < 5)
  end)
end)

describe("the control API's cpu_limit", function()
  after_each(stop)

  it("is told to who has asked for too much, and to nobody else", function()
    start(nil, { "-o", "cpu_limit=0.3" })
    assert.are.equal(200, ask("POST", "/connections/1/send", { text = ("a"):rep(60000) }).status)
    local c <close> = connect()
    local body = json.encode { match = "a*a*a*a*a*b" }
    assert(c:send(("POST /verify HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s"):format(JSON, #body,
      body)))
    assert.are.equal(200, ask("GET", "/health").status)
    local r = read_reply(c)
    assert.are.same({ 503, "close", "this took more computing than cpu_limit allows, and was ended" },
      { r.status, r.headers.connection, r.json.error })
    assert.are.equal("", (c:all()))
    assert.are.equal(1, #p:find("handler error"))
  end)
end)
