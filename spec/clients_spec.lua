local host = require("support.host")

-- The handlers that people copy, against the clients that their first lines name.
local function shell(command)
  local p = assert(io.popen("timeout 20 sh -c '" .. command:gsub("'", "'\\''") .. "' 2>&1"))
  local out = p:read("a")
  local _, _, code = p:close()
  return out, code
end

local function port_of(p, name) return ("%d"):format(p.ready.servers[name].port) end

describe("a real client", function()
  after_each(host.cleanup)

  it("nc, of echo, upper and daytime", function()
    local p = host.start({ "scripts/echo.lua", "--listen=tcp://127.0.0.1:0", "scripts/upper.lua",
      "--listen=tcp://127.0.0.1:0", "scripts/daytime.lua" })
    local function port(name) return port_of(p, name) end
    assert.are.equal("one\ntwo\n", (shell("printf 'one\\ntwo\\n' | nc -N 127.0.0.1 " .. port("echo"))))
    assert.are.equal("ONE\n", (shell("printf 'one\\n' | nc -N 127.0.0.1 " .. port("upper"))))
    assert.matches("^%a+.- %d%d:%d%d:%d%d.-\n$", (shell("nc -d 127.0.0.1 " .. port("daytime"))))
    p:stop()
  end)

  it("nc -u, of udp_time", function()
    local p = host.start("scripts/udp_time.lua", { listen = "udp://127.0.0.1:0" })
    local out = shell("echo now | nc -u -w 1 127.0.0.1 " .. port_of(p, "udp_time"))
    assert.matches("%d%d:%d%d:%d%d", out)
    p:stop()
  end)

  it("curl, of http_hello: one connection, two requests; HEAD; a body; HTTP/1.0", function()
    local p = host.start("scripts/http_hello.lua")
    local url = "http://127.0.0.1:" .. port_of(p, "http_hello")
    local out = shell(("curl -sS -w '%%{http_code} %%{num_connects}\\n' %s/ %s/"):format(url, url))
    assert.matches("200 1\n", out)
    assert.matches("200 0\n", out)
    assert.matches("^HTTP/1.1 200 OK\r\n", (shell("curl -sS -I " .. url)))
    assert.are.equal("200", (shell("curl -sS -o /dev/null -w '%{http_code}' -d name=moon " .. url)))
    assert.are.equal("200", (shell("curl -sS --http1.0 -o /dev/null -w '%{http_code}' " .. url)))
    p:stop()
  end)

  it("redis-cli and redis-benchmark, of redis_lite", function()
    local p = host.start("scripts/redis_lite.lua", { listen = { "tcp://127.0.0.1:0" } })
    local port = port_of(p, "redis_lite")
    local function cli(words) return (shell("redis-cli -p " .. port .. " " .. words)) end
    assert.are.equal("PONG\n", cli("ping"))
    assert.are.equal("OK\n", cli('set greeting "two words"'))
    assert.are.equal("two words\n", cli("get greeting"))
    assert.are.equal("1\n", cli("incr n"))
    assert.are.equal("2\n", cli("del greeting n none"))
    assert.matches("ERR unknown command", cli("nonsense"))
    local out, code = shell("redis-benchmark -p " .. port .. " -t ping,set,get,incr -P 16 -n 20000 -q")
    assert.are.equal(0, code, out)
    assert.matches("PING_MBULK: [%d.]+ requests per second", out)
    assert.matches("INCR: [%d.]+ requests per second", out)
    p:stop()
  end)
end)
