local apis = require("support.api")
local host = require("support.host")
local mocks = require("support.mocks")
local tls = require("support.tls")

-- Mocks that speak TLS, against Python's ssl and curl.

local m

local function start(text, options)
  m = mocks.start(text, options)
  return m
end

-- What a client prints that talks to a mock.
local function python(server, code) return tls.python(m.program:url(server), tls.certificate(m, server), code) end

local ECHO = [[
  local s = mock.server { "tcp://127.0.0.1:0", name = "s", tls = true }
  s:on("^who$", function(c) return ("%s %s\n"):format(c.tls.version, c.tls.server_name) end)
  s:on("^end$", function(c) c:send("bye\n") c:close() end)
  s:on("^reset$", function(c) c:reset() end)
  s:on("^big (%d+)$", function(_, n) return ("x"):rep(n) .. "\n" end)
  s:otherwise(function(_, frame) return "<" .. frame .. ">\n" end)]]

describe("a mock with tls", function()
  after_each(host.cleanup)

  it("speaks it from the first byte on, and journals what was said in it", function()
    start(ECHO)
    assert.are.equal("<hello>\nTLSv1.3 localhost\n<a>\n<b>\nbye\nend\n", python("s", [[
c = secure()
c.sendall(b"hello\n"); say(line(c), end="")
c.sendall(b"who\n"); say(line(c), end="")
c.sendall(b"a\nb\n"); say(line(c) + line(c), end="")
c.sendall(b"end\n"); say(line(c), end="")
say(end(c))]]))
    local seen = m:journal("s", "received", "sent", "note", "closed", "error")
    assert.is_truthy(seen[1]:find("^note TLSv1.3, TLS_[%w_]+, for localhost$"), seen[1])
    assert.are.same({
      "received hello", "sent <hello>\n", "received who", "sent TLSv1.3 localhost\n", "received a", "sent <a>\n",
      "received b", "sent <b>\n", "received end", "sent bye\n", "closed [closed]",
    }, table.move(seen, 2, #seen, 1, {}))
    m:stop()
  end)

  it("takes TLS 1.2, and nothing before it", function()
    start(ECHO)
    assert.are.equal("TLSv1.2 localhost\nrefused\n", python("s", [[
ctx = context(); ctx.maximum_version = ssl.TLSVersion.TLSv1_2
c = secure(ctx=ctx)
c.sendall(b"who\n"); say(line(c), end="")
c.close()
import warnings; warnings.simplefilter("ignore")
ctx = context(); ctx.minimum_version = ctx.maximum_version = ssl.TLSVersion.TLSv1_1
ctx.set_ciphers("ALL:@SECLEVEL=0")
try: secure(ctx=ctx); say("taken")
except OSError: say("refused")]]))
    m:stop()
  end)

  it("carries much, both ways, however it is cut", function()
    start(ECHO .. [[
      s:toxic { type = "slicer", stream = "downstream", average_size = 700, size_variation = 500 }
      s:toxic { type = "slicer", stream = "upstream", average_size = 700, size_variation = 500 }]])
    assert.are.equal("True\nTrue\n", python("s", [[
c = secure()
c.sendall(b"big 300000\n"); say(whole(c, 300001) == b"x" * 300000 + b"\n")
c.sendall(b"y" * 300000 + b"\n"); say(whole(c, 300003) == b"<" + b"y" * 300000 + b">\n")]]))
    m:stop()
  end)

  it("keeps records in order when several tasks send at once", function()
    start [[
      local moonport = require("moonport")
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", tls = true }
      s:on("^go$", function(c)
        local left = 20
        for n = 1, 20 do
          moonport.spawn(function()
            for _ = 1, 50 do
              c:send(("%02d "):format(n) .. ("x"):rep(n * 200) .. "\n")
              if n % 3 == 0 then moonport.sleep(0) end
            end
            left = left - 1
          end)
        end
        while left > 0 do c:sleep(0.001) end
        c:send("done\n")
      end)]]
    assert.are.equal("True\n", python("s", [[
c = secure()
c.sendall(b"go\n")
got = b""
while not got.endswith(b"done\n"): got += c.recv(65536)
lines = got.split(b"\n")[:-2]
good = [l for l in lines if l[3:] == b"x" * (int(l[:2]) * 200)]
say(len(lines) == len(good) == 1000)]]))
    m:stop()
  end)

  it("ends a connection as it was told to: a reset, and what is cut off", function()
    start(ECHO .. [[
      s:session(function(c)
        local line, why = c:recv()
        if line == "first" then
          line, why = c:recv()
          c:note(tostring(line) .. " " .. tostring(why))
        else
          c:reset()
        end
      end)]])
    assert.are.equal("ConnectionResetError\n", python("s", [[
c = secure()
c.sendall(b"reset\n"); say(end(raw(c)))
c = secure()
c.sendall(b"first\n"); c.close()
c = secure()
c.sendall(b"first\n"); c = c.unwrap(); c.close()]]))
    m:await("s", "note nil truncated")
    m:await("s", "note nil closed")
    host.eventually("all are closed", function() return #m:journal("s", "closed") == 3 end)
    local closed = m:journal("s", "closed")
    table.sort(closed)
    assert.are.same({ "closed [fin]", "closed [fin]", "closed [reset]" }, closed)
    m:stop()
  end)

  it("begins with what came in one piece with the command, and with nothing of it twice", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", tls = "starttls" }
      s:on("^STARTTLS$", mock.starttls "go\n")
      s:otherwise(function(_, frame) return "<" .. frame .. ">\n" end)]]
    assert.are.equal("go\n<a>\n<b>\n", python("s", [[
c, inc, out = connect(), ssl.MemoryBIO(), ssl.MemoryBIO()
sealed = context().wrap_bio(inc, out, server_hostname="localhost")
def step(f, *args):
    while True:
        try: return f(*args)
        except ssl.SSLWantReadError: pass
        c.sendall(out.read()); inc.write(c.recv(65536))
try: sealed.do_handshake()
except ssl.SSLWantReadError: pass
c.sendall(b"STARTTLS\n" + out.read())
said = b""
while not said.endswith(b"\n"): said += c.recv(1)
say(said.decode(), end="")
step(sealed.do_handshake)
sealed.write(b"a\nb\n")
got = b""
while got.count(b"\n") < 2: got += step(sealed.read, 100)
say(got.decode(), end="")]]))
    m:stop()
  end)

  it("goes on after clients that do not speak it, or do not want its certificate", function()
    start(ECHO)
    assert.are.equal("b''\nCERTIFICATE_VERIFY_FAILED\n<well>\n", python("s", [[
c = connect(); c.sendall(b"GET / HTTP/1.1\r\n\r\n"); say(repr(c.recv(10)))
c = connect(); c.sendall(b"\x16\x03\x01\x02\x00\x01"); c.close()
c = connect(); c.close()
try: secure(ctx=ssl.create_default_context())
except ssl.SSLError as e: say(e.reason)
c = secure(); c.sendall(b"well\n"); say(line(c), end="")]]))
    host.eventually("all are closed", function() return #m:journal("s", "closed") == 5 end)
    local errors = m:journal("s", "error")
    table.sort(errors)
    assert.are.same({ "error TLS: http request", "error TLS: tlsv1 alert unknown ca" }, errors)
    assert.are.equal(0, (m:finish()))
  end)

  it("gives up a client that says nothing, after 10 seconds", function()
    start(ECHO)
    local c <close> = m:connect("s")
    assert.is_true(host.sys.poll(c.fd, "r", 10 + host.SOON))
    assert.are.equal("", (c:all()))
    assert.are.same({ "error TLS: no handshake within 10 s" }, m:journal("s", "error"))
    assert.are.equal(0, (m:finish()))
  end)

  it("lets toxics at the sealed bytes", function()
    start(ECHO .. [[ s:toxic { type = "limit_data", stream = "downstream", bytes = 3000, nth = 1 } ]])
    assert.are.equal("SSLEOFError\n<x>\n", python("s", [[
c = secure()
c.sendall(b"big 5000\n")
try: whole(c, 5001); say("all")
except OSError as e: say(type(e).__name__)
c = secure(); c.sendall(b"x\n"); say(line(c), end="")]]))
    m:stop()
  end)

  it("answers a hundred at once", function()
    start(ECHO)
    assert.are.equal("100\n", python("s", [[
import threading
good = []
ctx = context()
def one(i):
    c = secure(ctx=ctx)
    for j in range(5):
        c.sendall(b"%d %d\n" % (i, j))
        if line(c) != "<%d %d>\n" % (i, j): return
    good.append(i)
threads = [threading.Thread(target=one, args=(i,)) for i in range(100)]
for t in threads: t.start()
for t in threads: t.join()
say(len(good))]]))
    m:stop()
  end)

  it("works in a sandbox, too", function()
    local p = host.start(host.write('local mock = require("moonport.mock")' .. ECHO),
      { command = "mock", listen = "", args = { "--sandbox", "--log-level=info" } })
    local api <close> = apis.connect(p)
    local certificate = api:must("GET", "/servers/s").tls.certificate
    assert.are.equal("<x>\n", tls.python(p:url("s"), certificate, [[
c = secure(); c.sendall(b"x\n"); say(line(c), end="")]]))
    p:stop()
  end)

  it("is one for curl, too", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", tls = true, frame = mock.upto "\r\n\r\n" }
      s:on("^GET /moon", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfull\n")]]
    local pem = host.write(tls.certificate(m, "s"))
    local p = io.popen(("curl -sS --max-time 10 --cacert %s https://localhost:%s/moon 2>&1"):format(pem,
      m.program:url("s"):match("%d+$")))
    assert.are.equal("full\n", p:read("a"))
    p:close()
    m:stop()
  end)
end)

describe("STARTTLS", function()
  after_each(host.cleanup)

  local SMTP = [[
    local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = mock.line "\r\n", tls = "starttls" }
    s:session(function(c)
      c:send "220 mock ESMTP\r\n"
      c:serve()
    end)
    s:on("^ehlo", function(c) return c.tls and "250 mock\r\n" or "250-mock\r\n250 STARTTLS\r\n" end)
    s:on("^STARTTLS$", mock.starttls "220 go\r\n")
    s:on("^noop$", function(c) return c.tls and "250 sealed\r\n" or "250 open\r\n" end)
    s:on("^quit$", function(c) c:send "221 bye\r\n" c:close() end)]]

  it("is a reply, or a word of the conversation: Python's smtplib", function()
    start(SMTP)
    assert.are.equal("b'open' b'go' b'sealed' b'bye'\n", python("s", [[
import smtplib
s = smtplib.SMTP("localhost", port, timeout=10)
s.ehlo()
say(s.noop()[1], s.starttls(context=context())[1], s.noop()[1], s.quit()[1])]]))
    m:stop()
  end)

  it("comes after what was said before, and what a client says too early is no part of it", function()
    start(SMTP)
    assert.are.equal("220 mock ESMTP\r\n250 open\r\n220 go\r\nb''\n", python("s", [[
c = connect(); c.sendall(b"noop\r\nSTARTTLS\r\nnoop\r\n")
say(line(c) + line(c) + line(c), end=""); say(repr(c.recv(100)))]]))
    assert.are.same({ "error TLS: wrong version number" }, m:journal("s", "error"))
    assert.are.same({ "received noop", "received STARTTLS" }, m:journal("s", "received"))
    m:stop()
  end)

  it("takes what a hasty client sends along with its word", function()
    start(SMTP)
    assert.are.equal("220 mock ESMTP\r\n220 go\r\n250 sealed\r\n", python("s", [[
c = connect()
inn, out = ssl.MemoryBIO(), ssl.MemoryBIO()
o = context().wrap_bio(inn, out, server_hostname="localhost")
def step(f):
    while True:
        try:
            got = f()
            c.sendall(out.read())
            return got
        except ssl.SSLWantReadError:
            if out.pending: c.sendall(out.read())
            inn.write(c.recv(65536))
try: o.do_handshake()
except ssl.SSLWantReadError: pass
c.sendall(b"STARTTLS\r\n" + out.read())
say(line(c) + line(c), end="")
step(o.do_handshake)
step(lambda: o.write(b"noop\r\n"))
say(step(lambda: o.read(100)).decode(), end="")]]))
    assert.are.same({ "received STARTTLS", "received noop" }, m:journal("s", "received"))
    m:stop()
  end)

  it("waits for a slow greeting, and for what toxics hold", function()
    start(SMTP .. [[ s:toxic { type = "latency", stream = "downstream", latency = 50 } ]])
    assert.are.equal("220 mock ESMTP\r\n220 go\r\n250 sealed\r\n", python("s", [[
c = connect(); say(line(c), end=""); c.sendall(b"STARTTLS\r\n"); say(line(c), end="")
c = secure(c); c.sendall(b"noop\r\n"); say(line(c), end="")]]))
    assert.are.same({ "sent 220 mock ESMTP\r\n", "sent 220 go\r\n", "sent 250 sealed\r\n" }, m:journal("s", "sent"))
    m:stop()
  end)

  it("is the client's mistake when it comes again: that is journaled, and ends the connection", function()
    start(SMTP)
    assert.are.equal("220 mock ESMTP\r\n220 go\r\nb''\n", python("s", [[
c = connect(); say(line(c), end=""); c.sendall(b"STARTTLS\r\n"); say(line(c), end="")
c = secure(c); c.sendall(b"STARTTLS\r\n"); say(repr(c.recv(100)))]]))
    m:await("s", "closed [closed]")
    assert.are.same({ "error TLS: the client asks for it, and speaks it already" }, m:journal("s", "error"))
    m:stop()
  end)

  it("names the function that returns it where it cannot be", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^go$", function() return mock.starttls "220 go" end)]]
    local c <close> = m:connect("s")
    c:send("go\n")
    assert.are.equal("", c:all())
    host.eventually("the error", function() return m:journal("s", "error")[1] end)
    local said = m:journal("s", "error")[1]
    assert.truthy(said:find('script.lua:2: what this function returned is no reply: mock.starttls needs a certificate: '
      .. 'mock.server { ..., tls = "starttls" }', 1, true), said)
    assert.are.equal(1, (m:finish()))
  end)

  it("is refused where it cannot be", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^go$", function(c) return tostring(select(2, pcall(c.starttls, c))) .. "\n" end)
      local t = mock.server { "tcp://127.0.0.1:0", name = "t", tls = true }
      t:on("^go$", function(c) return tostring(select(2, pcall(c.starttls, c))) .. "\n" end)]]
    local c <close> = m:connect("s")
    assert.is_truthy(c:ask("go"):find('c:starttls needs a certificate: mock.server { ..., tls = "starttls" }', 1, true))
    assert.is_truthy(python("t", 'c = secure(); c.sendall(b"go\\n"); say(line(c), end="")')
      :find("c:starttls: the conversation speaks TLS already", 1, true))
    m:stop()
  end)
end)

describe("a certificate", function()
  after_each(host.cleanup)

  it("is for the names, and as old, as the script says", function()
    start [[
      local moonport = require("moonport")
      local tls = require("moonport.tls")
      local certificate, key = tls.certificate { names = { "own.test" } }
      mock.server { "tcp://127.0.0.1:0", name = "own", tls = { certificate = certificate, key = key } }
      mock.server { "tcp://127.0.0.1:0", name = "named", tls = { names = { "example.test", "*.example.test" } } }
      mock.server { "tcp://127.0.0.1:0", name = "expired", tls = { days = -1 } }
      mock.server { "tcp://127.0.0.1:0", name = "usual", tls = true }]]
    local try = [[
import re
for name in %s:
    try: secure(name=name).close(); say(name, "good")
    except ssl.SSLCertVerificationError as e: say(name, re.sub(r"[,.].*", "", e.verify_message))]]
    local function tried(server, names) return python(server, try:format(names)) end
    assert.are.equal("own.test good\nlocalhost Hostname mismatch\n", tried("own", '"own.test", "localhost"'))
    assert.are.equal("example.test good\na.example.test good\nlocalhost Hostname mismatch\n",
      tried("named", '"example.test", "a.example.test", "localhost"'))
    assert.are.equal("localhost certificate has expired\n", tried("expired", '["localhost"]'))
    assert.are.equal("localhost good\n127.0.0.1 good\n::1 good\nelsewhere.test Hostname mismatch\n",
      tried("usual", '"localhost", "127.0.0.1", "::1", "elsewhere.test"'))
    m:stop()
  end)

  it("stays when the script is loaded again, unless it asks for another; conversations go on", function()
    start(ECHO .. [[
      mock.server { "tcp://127.0.0.1:0", name = "other", tls = { names = { "a.test" } } }]])
    local s, other = tls.certificate(m, "s"), tls.certificate(m, "other")
    local function reload()
      local before = #m.program:find("reloaded")
      m.program:kill("HUP")
      host.eventually("a reload", function() return #m.program:find("reloaded") > before end)
      m.door:close()
      m.door = nil
    end
    host.write((host.read(m.path):gsub("a%.test", "b.test")), m.path)
    reload()
    assert.are.equal(s, tls.certificate(m, "s"))
    assert.are_not.equal(other, tls.certificate(m, "other"))
    reload()
    assert.are.equal(s, tls.certificate(m, "s"))
    local pid = m.program.pid
    assert.are.equal("<before>\n<after>\n<new>\n", python("s", ([[
import signal, time
c = secure(); c.sendall(b"before\n"); say(line(c), end="")
os.kill(%d, signal.SIGHUP)
for i in range(1000):
    if open("%s").read().count('"reloaded"') == 3: break
    time.sleep(0.01)
c.sendall(b"after\n"); say(line(c), end="")
c = secure(); c.sendall(b"new\n"); say(line(c), end="")]]):format(pid, m.program.log_path)))
    m:stop()
  end)

  for what, case in pairs {
    ["for datagrams"] = { '"udp://127.0.0.1:0", tls = true', "tls needs connections, and datagrams have none" },
    ["of no kind"] = { '"tcp://127.0.0.1:0", tls = 1', 'tls is true, "starttls" or a table' },
    ["with an unknown field"] = { '"tcp://127.0.0.1:0", tls = { cert = "x" }',
      "tls has no field cert; there are certificate, key, names, days and starttls" },
    ["with half a pair"] = { '"tcp://127.0.0.1:0", tls = { key = "x" }',
      "tls: certificate and key go together, in PEM" },
    ["with a field of a wrong type"] = { '"tcp://127.0.0.1:0", tls = { days = "x" }',
      "tls: days is a number, not a string" },
    ["with names of no host"] = { '"tcp://127.0.0.1:0", tls = { names = { "a,b" } }',
      "tls: a name is a host name or an address, not 'a,b'" },
    ["with no names"] = { '"tcp://127.0.0.1:0", tls = { names = {} }', "tls: names: 1 to 100 host names or addresses" },
    ["with too many days"] = { '"tcp://127.0.0.1:0", tls = { days = 1 << 40 }',
      "tls: days: at most 36500, or so long ago" },
    ["with both"] = { '"tcp://127.0.0.1:0", tls = { certificate = "x", key = "y", days = 1 }',
      "tls: names and days are for a certificate that is made here" },
    ["that is none"] = { '"tcp://127.0.0.1:0", tls = { certificate = "x", key = "y" }',
      "tls: the certificate is no certificate in PEM" },
  } do
    it("is refused in one sentence: " .. what, function()
      local path = host.write(('local mock = require("moonport.mock")\nmock.server { %s }'):format(case[1]))
      local code, _, said = host.run { "mock", path }
      assert.are.equal(100, code)
      assert.is_truthy(said:find(path .. ":2: mock.server: " .. case[2], 1, true), said)
    end)
  end
end)

describe("the control API and TLS:", function()
  after_each(host.cleanup)

  it("a server can be made with it, and tells its certificate", function()
    start("")
    local api <close> = apis.connect(m.program)
    api:must("POST", "/servers", { name = "t", tls = { starttls = true, names = { "api.test" } }, stubs = {
      { match = "^STARTTLS$", reply = { starttls = true, reply = "go\n" } },
      { match = "^x$", reply = "y\n" },
    } })
    local told = api:must("GET", "/servers/t")
    assert.is_true(told.tls.starttls)
    assert.is_nil(told.tls.key)
    assert.are.same({ starttls = true, reply = { text = "go\n" } }, told.stubs[1].reply)
    assert.are.equal("go\ny\n", tls.python(told.url, told.tls.certificate, [[
c = connect(); c.sendall(b"STARTTLS\n"); say(line(c), end="")
c = secure(c, name="api.test"); c.sendall(b"x\n"); say(line(c), end="")]]))
    local status, answer = api:ask("POST", "/servers", { name = "u", tls = { names = { "a b" } } })
    assert.are.same({ 400, "a server: tls: a name is a host name or an address, not 'a b'" }, { status, answer.error })
    status, answer = api:ask("POST", "/servers/t/stubs", { match = "a", reply = { starttls = 1 } })
    assert.are.same({ 400, "starttls: true, and the reply before it" }, { status, answer.error })
    api:must("DELETE", "/servers/t")
    local starttls = { match = "a", reply = { starttls = true, reply = "go" } }
    local needed = 'mock.starttls needs a certificate: mock.server { ..., tls = "starttls" }'
    api:must("POST", "/servers", { name = "plain" })
    status, answer = api:ask("POST", "/servers/plain/stubs", starttls)
    assert.are.same({ 400, needed }, { status, answer.error })
    status, answer = api:ask("POST", "/servers", { otherwise = starttls.reply })
    assert.are.same({ 400, "otherwise: " .. needed }, { status, answer.error })
    m:stop()
  end)

  it("nothing is pushed into it", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", tls = "starttls" }
      s:on("^STARTTLS$", mock.starttls "go\n")
      s:on("", "ok\n")]]
    local api <close> = apis.connect(m.program)
    assert.are.equal("go\n409\n", python("s", ([[
import json, urllib.request
admin = "%s"
def ask(path, body=None):
    r = urllib.request.Request(admin + path, data=body, headers={"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(r, timeout=10))
c = connect(); c.sendall(b"STARTTLS\n"); say(line(c), end="")
id = ask("/connections")["connections"][0]["id"]
c = secure(c)
try: ask("/connections/%%d/send" %% id, b'{"text": "x"}'); say("pushed")
except urllib.error.HTTPError as e: say(e.code)]]):format(m.program.ready.admin)))
    local c <close> = m:connect("s")
    assert.are.equal("ok", c:ask("a"))
    local id
    for _, one in ipairs(api:must("GET", "/connections").connections) do id = one.server == "s" and one.id or id end
    api:must("POST", ("/connections/%d/send"):format(id), { text = "pushed\n" })
    assert.are.equal("pushed", c:line())
    m:stop()
  end)
end)
