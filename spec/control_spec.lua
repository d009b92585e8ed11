local cjson = require("cjson")
local host = require("support.host")
local mocks = require("support.mocks")

-- moonport.control, as the control API's handler uses it: what a running host can be told to do. What the API
-- itself says over HTTP is not its concern.

local SCRIPT = [[
mock.server { "tcp://127.0.0.1:0", name = "line", frame = mock.line "\n" }
  :on("^big$", ("x"):rep(4 * 1024 * 1024))
  :on("^die$", function(c) c:close() end)
  :otherwise("ok\n")
mock.server { "udp://127.0.0.1:0", name = "datagram" }:otherwise("ok")
]]

describe("moonport.control", function()
  local m, api

  -- One request on a connection that stays; status and what came.
  local function http(method, path, body, kind)
    api = api or host.connect((m.program.ready.admin:gsub("^http:", "tcp:")))
    local text = type(body) == "table" and cjson.encode(body) or body or ""
    assert(api:send(("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"):format(
      method, path, kind or "application/json", #text, text)))
    local status = assert(assert(api:line()):match("^HTTP/1.1 (%d+)"))
    local length = 0
    for line in function() return api:line() end do
      if not line:find("%S") then break end
      length = tonumber(line:lower():match("^content%-length: *(%d+)")) or length
    end
    local got = length > 0 and assert(api:receive(length)) or ""
    return tonumber(status), got:find("^{") and cjson.decode(got) or got
  end

  local function must(method, path, body, kind)
    local status, got = http(method, path, body, kind)
    local why = type(got) == "table" and got.error or ""
    assert.is_true(status < 300, ("%s %s: %d %s"):format(method, path, status, why))
    return got
  end

  local function refused(url)
    local ok, client = pcall(host.connect, url)
    if ok then client:close() end
    return not ok
  end

  local function connection()
    local all = must("GET", "/connections").connections
    for _, c in ipairs(all) do
      if c.server == "line" then return c end
    end
  end

  local function start(args) m = mocks.start(SCRIPT, { args = args }) end

  local function stop()
    if api then api:close() end
    api = nil
    m:finish()
  end

  after_each(function()
    if api then api:close() end
    api = nil
    host.cleanup()
  end)

  it("opens servers and closes them a hundred times, and nothing is left", function()
    start()
    must("POST", "/servers", { name = "first" })
    must("DELETE", "/servers/first")
    local before = m.program:descriptors()
    for i = 1, 100 do
      local made = must("POST", "/servers", { name = "s" .. i % 3, otherwise = "hi\n", frame = { line = "\n" } })
      local client = host.connect(made.url)
      assert.are.equal("hi", client:ask("x"))
      must("DELETE", "/servers/s" .. i % 3)
      assert.is_true(refused(made.url), "its port is still open")
      assert.is_nil(client:line())
      client:close()
    end
    host.eventually("all descriptors closed", function() return m.program:descriptors() <= before end)
    stop()
  end)

  it("refuses while a server is down, keeps its port and its connections, and comes back", function()
    start()
    for _, name in ipairs { "line", "datagram" } do
      local url = m.program:url(name)
      local client = name == "line" and host.connect(url)
      for _ = 1, 3 do
        must("PATCH", "/servers/" .. name, { enabled = false })
        if client then
          assert.is_true(refused(url))
          assert.are.equal("ok", client:ask("x"))
        else
          local d = host.connect(url)
          d:send("x")
          assert.is_false(pcall(function()
            local answer, why = d:some(1)
            assert(answer, why)
          end))
          d:close()
        end
        must("PATCH", "/servers/" .. name, { enabled = true })
        local again = host.connect(url)
        again:send("x\n")
        assert.matches("^ok", again:some())
        again:close()
      end
      if client then client:close() end
    end
    stop()
  end)

  it("pushes behind a write that is under way, and never into it", function()
    start()
    local client = host.connect(m.program:url("line"), { receive = 4096 })
    assert.are.equal("ok", client:ask("x"))
    client:send("big\n")
    assert.are.equal("x", client:receive(1))
    must("POST", ("/connections/%d/send"):format(connection().id), { text = "pushed" })
    local rest = client:receive(4 * 1024 * 1024 - 1 + 6)
    assert.is_true(rest == ("x"):rep(4 * 1024 * 1024 - 1) .. "pushed")
    client:close()
    stop()
  end)

  it("kills a connection by FIN or by RST", function()
    start()
    for how, want in pairs { fin = "^nil", rst = "reset" } do
      local client = host.connect(m.program:url("line"))
      assert.are.equal("ok", client:ask("x"))
      must("DELETE", ("/connections/%d?how=%s"):format(connection().id, how))
      local data, why = client:some()
      assert.matches(want, (data == "" and "nil" or tostring(data)) .. " " .. tostring(why):lower())
      client:close()
      host.eventually("its end", function() return connection() == nil end)
    end
    stop()
  end)

  it("reloads a script from a text, and keeps the old one when that is broken", function()
    start { "--allow-script-upload" }
    local url = m.program:url("line")
    local client = host.connect(url)
    assert.are.equal("ok", client:ask("x"))
    local status, got = http("PUT", "/servers/line/script", "-- one\nreturn nothing.here\n", "text/x-lua")
    assert.are.equal(422, status)
    assert.matches(":2:", got.error)
    must("PUT", "/servers/line/script", mocks.script((SCRIPT:gsub('"ok\\n"', '"new\\n"'))), "text/x-lua")
    assert.are.equal("ok", client:ask("x"), "a conversation goes on as it began")
    local again = host.connect(url)
    assert.are.equal("new", again:ask("x"))
    again:close()
    must("POST", "/servers/line/reload")
    again = host.connect(url)
    assert.are.equal("ok", again:ask("x"), "an ordinary reload reads the file")
    again:close()
    client:close()
    stop()
  end)

  it("loses no call that comes in the middle of a reload", function()
    start()
    must("POST", "/servers", { name = "made", otherwise = "no\n", frame = { line = "\n" } })
    local other = host.connect((m.program.ready.admin:gsub("^http:", "tcp:")))
    for i = 1, 30 do
      assert(other:send("POST /servers/made/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"))
      must("POST", "/servers/made/stubs", { id = "s" .. i, match = { equals = "n" .. i }, reply = "yes\n" })
    end
    assert.are.equal(30, #must("GET", "/servers/made/stubs").stubs)
    other:close()
    stop()
  end)
end)
