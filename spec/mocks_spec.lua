local cjson = require("cjson")
local host = require("support.host")

-- The mocks that people copy, against the real clients that their first lines name.

local PACKAGES = {
  ["redis-cli"] = "redis-tools", python3 = "python3", curl = "curl", swaks = "swaks", dig = "bind9-dnsutils",
  memccp = "libmemcached-tools", nc = "netcat-openbsd", psql = "postgresql-client",
}

-- What a command prints, errors included, and its exit code. Its first word is a client.
local function run(command, ...)
  command = command:format(...)
  local client = command:match("([%w-]+) ")
  if not os.execute("command -v " .. client .. " >/dev/null") then
    error(("%s is not installed: apt-get install %s, or make deps"):format(client, PACKAGES[client] or client), 2)
  end
  local path = host.write(command .. "\n", host.folder() .. "/command")
  local p = assert(io.popen("timeout 10 sh " .. path .. " 2>&1"))
  local out = p:read("a")
  local _, _, code = p:close()
  return out, code
end

-- Starts a mock of scripts/mocks; the program, and the port.
local function mock(name, server)
  local p = host.start("scripts/mocks/" .. name .. ".lua",
    { command = "mock", listen = "", args = { "--log-level=info" } })
  return p, math.tointeger(p.ready.servers[server or name].port)
end

-- Asks the control API.
local function api(p, method, path, body)
  local data = body and (" -H 'Content-Type: application/json' -d '%s'"):format(cjson.encode(body)) or ""
  local out = run("curl -sS -X %s%s '%s%s'", method, data, p.ready.admin, path)
  return out ~= "" and cjson.decode(out) or nil
end

-- The data (of "closed": the detail) of a server's records of one kind, as far as they are text.
local function journal(p, kind)
  local list = {}
  for i, record in ipairs(api(p, "GET", "/journal?kind=" .. kind).records) do
    list[i] = kind == "closed" and record.detail or record.data.text or false
  end
  return list
end

local function contains(text, ...)
  for _, part in ipairs { ... } do
    assert.is_truthy(text:find(part, 1, true), ("no '%s' in:\n%s"):format(part, text))
  end
end

describe("the mock of a redis", function()
  after_each(host.cleanup)

  it("talks to redis-cli", function()
    local p, port = mock("redis")
    local function cli(words) return (run("redis-cli -p %d %s", port, words)) end
    assert.are.equal("PONG\n", cli("ping"))
    assert.are.equal("OK\n", cli("set greeting 'hello world'"))
    assert.are.equal("hello world\n", cli("get greeting"))
    assert.are.equal("1\n2\n", cli("incr n") .. cli("incr n"))
    assert.are.equal("ERR value is not an integer or out of range\n\n", cli("incr greeting"))
    assert.are.equal("1\n100\n", cli("expire n 100") .. cli("ttl n"))
    assert.are.equal("OK\n", cli("set gone x px 1"))
    host.eventually("the end of a key", function() return cli("ttl gone") == "-2\n" end)
    assert.are.equal("\n", cli("get gone"))
    assert.are.equal("2\n", cli("del greeting n none"))
    contains(cli("info"), "redis_version:7")
    contains(cli("nonsense"), "ERR unknown command 'NONSENSE'")
    contains(cli("-3 ping"), "PONG")
    contains(cli("hello 2"), "proto\n2\n")
    assert.are.equal("OK\n", cli("client setinfo lib-name spec"))
    assert.are.equal("SET greeting hello world", journal(p, "received")[2])
    p:stop()
  end)

  it("takes commands in lines, in pipelines, and cut anywhere", function()
    local p, port = mock("redis")
    assert.are.equal("+PONG\r\n+OK\r\n$1\r\nb\r\n:1\r\n",
      (run("printf 'PING\\r\\nset a b\\nGET a\\r\\n\\r\\nINCR q\\r\\n' | nc -N 127.0.0.1 %d", port)))
    local client = host.connect(p:url())
    local text = "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$5\r\nv\r\nw \r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    for i = 1, #text do
      client:send(text:sub(i, i))
    end
    assert.are.equal("+OK\r\n$5\r\nv\r\nw \r\n", (client:receive(16)))
    client:send("*x\r\n")
    assert.are.equal("", (client:all()))
    client:close()
    p:kill("TERM")
    p:wait()
  end)

  it("pushes what is published", function()
    local p, port = mock("redis")
    local reader = assert(io.popen(("timeout 10 redis-cli -p %d subscribe news other 2>&1"):format(port)))
    local head = {}
    for i = 1, 6 do head[i] = reader:read("l") end
    assert.are.same({ "subscribe", "news", "1", "subscribe", "other", "2" }, head)
    assert.are.equal("1\n", (run("redis-cli -p %d publish news 'two words'", port)))
    assert.are.same({ "message", "news", "two words" }, { reader:read("l", "l", "l") })
    local id = math.tointeger(api(p, "GET", "/connections").connections[1].id)
    api(p, "DELETE", "/connections/" .. id)
    reader:close()
    assert.are.equal("0\n", (run("redis-cli -p %d publish news again", port)))
    p:stop()
  end)

  it("can be measured by redis-benchmark", function()
    local p, port = mock("redis")
    local out, code = run("redis-benchmark -p %d -t ping,set,get,incr -P 16 -n 4800 -q", port)
    assert.are.equal(0, code, out)
    contains(out, "PING_INLINE", "PING_MBULK", "SET", "GET", "INCR")
    assert.is_nil(out:find("WARN", 1, true), out)
    assert.are.equal("4800", api(p, "GET", "/servers/redis/state").strings["counter:__rand_int__"])
    p:stop()
  end)

  it("can reset the first connection, and serve the second", function()
    local p, port = mock("redis_flaky", "redis")
    contains((run("redis-cli -p %d ping", port)), "reset by peer")
    assert.are.equal("PONG\n", (run("redis-cli -p %d ping", port)))
    assert.are.same({ "reset", "fin" }, journal(p, "closed"))
    assert.are.same({ "PING", "PING" }, journal(p, "received"))
    p:stop()
  end)
end)

describe("the mock of a mail server", function()
  after_each(host.cleanup)

  it("takes mails from smtplib, with a login, many recipients and lines that begin with dots", function()
    local p, port = mock("smtp")
    local script = host.write([[
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=10) as s:
    s.login("ann", "secret")
    to = ["bob@example.test", "cy@example.test"]
    for n in range(2):
        print(s.sendmail("ann@example.test", to, "Subject: x\n\n.one\n..two\nend\n"))
]], host.folder() .. "/send.py")
    assert.are.equal("{}\n{}\n", (run("python3 %s %d", script, port)))
    local mails = api(p, "GET", "/servers/smtp/state").mails
    assert.are.equal(2, #mails)
    assert.are.equal("Subject: x\r\n\r\n.one\r\n..two\r\nend", mails[2].data)
    assert.are.same({ "bob@example.test", "cy@example.test" }, mails[2].to)
    assert.are.equal("AGFubgBzZWNyZXQ=", mails[1].auth)
    p:stop()
  end)

  it("takes mails from curl and swaks", function()
    local p, port = mock("smtp")
    local mail = host.write("Subject: hi\r\n\r\n.dot\r\n", host.folder() .. "/mail")
    assert.are.same({ "", 0 }, {
      run("curl -sS smtp://127.0.0.1:%d --user me:secret --mail-from a@x --mail-rcpt b@x -T %s", port, mail),
    })
    local out, code = run("swaks --server 127.0.0.1:%d --from a@x --to b@x,c@x --auth LOGIN --auth-user u " ..
      "--auth-password p --body .hello", port)
    assert.are.equal(0, code, out)
    local mails = api(p, "GET", "/servers/smtp/state").mails
    assert.are.equal("Subject: hi\r\n\r\n.dot", mails[1].data)
    contains(mails[2].data, "\r\n\r\n.hello\r\n")
    assert.are.same({ "b@x", "c@x" }, mails[2].to)
    p:stop()
  end)

  it("talks TLS to Python's smtplib, and to a curl that demands it", function()
    local p, port = mock("smtp")
    local pem = host.write(api(p, "GET", "/servers/smtp").tls.certificate)
    local script = host.write([[
import smtplib, ssl, sys
s = smtplib.SMTP("localhost", int(sys.argv[1]), timeout=10)
s.starttls(context=ssl.create_default_context(cafile=sys.argv[2]))
s.ehlo()
print(s.has_extn("starttls"))
s.login("ann", "secret")
s.sendmail("a@example.test", ["b@example.test"], "Subject: sealed\r\n\r\nhello\r\n")
s.quit()
]])
    assert.are.equal("False\n", (run("python3 %s %d %s", script, port, pem)))
    local mail = host.write("Subject: by curl\r\n\r\nhello\r\n")
    local out, code = run("curl -sS --ssl-reqd --cacert %s smtp://localhost:%d --mail-from c@example.test "
      .. "--mail-rcpt d@example.test -T %s", pem, port, mail)
    assert.are.same({ "", 0 }, { out, code })
    local mails = api(p, "GET", "/servers/smtp/state").mails
    assert.are.same({ "a@example.test", "c@example.test" }, { mails[1].from, mails[2].from })
    p:stop()
  end)

  it("can refuse at any stage", function()
    local p, port = mock("smtp")
    local function send()
      return run("swaks --server 127.0.0.1:%d --from a@x --to b@x --auth-user u --auth-password p --timeout 5", port)
    end
    for _, stage in ipairs { "connect", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "." } do
      api(p, "PUT", "/servers/smtp/state", { mails = {}, refuse = { [stage] = "454 4.7.0 not at " .. stage } })
      local out, code = send()
      contains(out, "454 4.7.0 not at " .. stage)
      assert.are_not.equal(0, code)
    end
    p:stop()
    p, port = mock("smtp_full", "smtp")
    local out, code = send()
    contains(out, "354 End data", "452 4.3.1 Insufficient system storage")
    assert.are.equal(26, code) -- swaks: the data was refused
    p:stop()
  end)
end)

describe("the mock of a web server", function()
  after_each(host.cleanup)

  it("talks to curl: keep-alive, chunks, a state", function()
    local p, port = mock("http")
    local url = "http://127.0.0.1:" .. port
    assert.are.equal("Hello, world!\n200 1\none\ntwo\nthree\n200 0\n",
      (run("curl -sS -w '%%{http_code} %%{num_connects}\\n' %s/ %s/chunks", url, url)))
    contains((run("curl -sS -I %s/", url)), "HTTP/1.1 200 OK\r\n", "Content-Length: 14\r\n")
    contains((run("printf 'GET /nowhere HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n' | nc 127.0.0.1 %d", port)),
      "404 Not Found")
    assert.are.equal("Hello, world!\n", (run("curl -sS --http1.0 %s/", url)))
    assert.are.equal('{"id":1}\n', (run("curl -sS -d '{\"text\":\"milk\"}' %s/notes", url)))
    assert.are.equal('{"id":2}\n', (run("printf '{\"text\":\"eggs\"}' | " ..
      "curl -sS -H Expect: -H 'Transfer-Encoding: chunked' -X POST -T - %s/notes", url)))
    assert.are.same({ { text = "milk" }, { text = "eggs" } }, cjson.decode((run("curl -sS %s/notes", url))))
    assert.are.equal('{"text":"eggs"}\n', (run("curl -sS %s/notes/2", url)))
    assert.are.equal("404", (run("curl -sS -o /dev/null -w '%%{http_code}' %s/notes/3", url)))
    assert.are.equal("405", (run("curl -sS -o /dev/null -w '%%{http_code}' -X DELETE %s/notes/3", url)))
    assert.are.equal("1048576\n", (run("curl -sS %s/big | wc -c", url)))
    assert.are.same({ '{"text":"milk"}', '{"text":"eggs"}' }, api(p, "GET", "/servers/http/state").notes)
    contains(journal(p, "received")[6], "POST /notes HTTP/1.1\r\n", '\r\n\r\n{"text":"milk"}')
    p:stop()
  end)

  it("can break off in the middle of a body", function()
    local p, port = mock("http_cut", "http")
    local out, code = run("curl -sS -o /dev/null -w '%%{size_download}\\n' http://127.0.0.1:%d/big", port)
    assert.are.equal(56, code, out) -- curl: failure in receiving
    contains(out, "reset by peer", "100\n")
    assert.are.equal(("moon"):rep(250), (run("curl -sS http://127.0.0.1:%d/big", port)))
    assert.are.equal("reset", journal(p, "closed")[1])
    p:stop()
  end)
end)

describe("the mock of a name server", function()
  after_each(host.cleanup)

  it("talks to dig: A, AAAA, TXT, CNAME, no such name, and an answer that is too long", function()
    local p, port = mock("dns")
    local function dig(words) return (run("dig @127.0.0.1 -p %d +tries=1 +timeout=5 +ignore %s", port, words)) end
    assert.are.equal("192.0.2.1\n", dig("+short Example.test"))
    assert.are.equal("2001:db8::1\n", dig("+short example.test aaaa"))
    assert.are.equal('"v=spf1 -all"\n', dig("+short example.test txt"))
    assert.are.equal("example.test.\n192.0.2.1\n", dig("+short www.example.test"))
    contains(dig("nowhere.test"), "status: NXDOMAIN")
    contains(dig("example.test mx"), "status: NOERROR", "ANSWER: 0")
    contains(dig("long.example.test txt"), " tc ", "ANSWER: 0")
    contains(dig("+bufsize=4096 long.example.test txt"), "ANSWER: 6")
    api(p, "PUT", "/servers/dns/state", { ["new.test"] = { AAAA = { "::1" } } })
    assert.are.equal("::1\n", dig("+short new.test aaaa"))
    p:stop()
  end)

  it("can answer slowly", function()
    local p, port = mock("dns_slow", "dns")
    contains((run("dig @127.0.0.1 -p %d example.test +timeout=1 +tries=1", port)), "timed out")
    api(p, "PATCH", "/servers/dns/toxics/slow", { attributes = { latency = 200 } })
    local out = run("dig @127.0.0.1 -p %d example.test +timeout=5 +tries=1", port)
    contains(out, "192.0.2.1")
    local took = tonumber(out:match("Query time: (%d+) msec"))
    assert.is_true(took >= 199, "it took " .. took .. " ms")
    p:stop()
  end)
end)

describe("the mock of a memcached", function()
  after_each(host.cleanup)

  it("talks to libmemcached's tools", function()
    local p, port = mock("memcached")
    local file = host.write("hello moon\n", host.folder() .. "/greeting")
    local server = "--servers=127.0.0.1:" .. port
    assert.are.same({ "", 0 }, { run("memccp %s %s", server, file) })
    assert.are.equal("hello moon\n\n", (run("memccat %s greeting", server)))
    contains((run("memcstat %s", server)), "version: 1.6.0", "curr_items: 1")
    assert.are.equal(0, select(2, run("memcrm %s greeting", server)))
    assert.are_not.equal(0, select(2, run("memccat %s greeting", server)))
    contains(journal(p, "received")[1], "set greeting ")
    p:stop()
  end)

  it("talks to nc", function()
    local p, port = mock("memcached")
    local input = "set a 7 0 2\r\nhi\r\nget a b\r\nincr a 1\r\nset n 0 0 1 noreply\r\n5\r\nincr n 7\r\ndecr n 20\r\n" ..
      "add n 0 0 1\r\n1\r\nreplace n 0 -1 1\r\n9\r\nget n\r\ntouch a 100\r\ndelete a\r\ndelete a\r\nset x\r\nquit\r\n"
    local path = host.write(input, host.folder() .. "/input")
    assert.are.equal("STORED\r\nVALUE a 7 2\r\nhi\r\nEND\r\n" ..
      "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n12\r\n0\r\nNOT_STORED\r\nSTORED\r\nEND\r\n" ..
      "TOUCHED\r\nDELETED\r\nNOT_FOUND\r\nERROR\r\n", (run("nc -N 127.0.0.1 %d < %s", port, path)))
    p:stop()
  end)
end)

describe("the mock of a PostgreSQL", function()
  after_each(host.cleanup)

  it("speaks TLS to a psql that wants it, and to one that checks the certificate", function()
    local p, port = mock("postgres")
    local pem = host.write(api(p, "GET", "/servers/postgres").tls.certificate)
    for _, mode in ipairs { "disable", "require", "verify-full" } do
      assert.are.equal("1\n", (run("psql 'host=localhost port=%d user=moon sslmode=%s sslrootcert=%s' "
        .. "-At -c 'select 1'", port, mode, pem)))
    end
    local notes = journal(p, "note")
    assert.are.equal(2, #notes)
    contains(notes[1], "TLSv1.3, ")
    p:stop()
  end)

  it("talks to psql: start-up, a SELECT, an error, a password", function()
    local p, port = mock("postgres")
    local function psql(words, password)
      return run("psql 'host=127.0.0.1 port=%d user=moon password=%s connect_timeout=5' -At %s", port,
        password or "none", words)
    end
    assert.are.same({ "1\n", 0 }, { psql("-c 'select 1;'") })
    assert.are.equal("Earth|1\nMars|2\nVenus|\n", (psql("-c 'SELECT * FROM planets'")))
    assert.are.same({ "BEGIN\nINSERT 0 1\nCOMMIT\n", 0 }, { psql("-c begin -c 'INSERT INTO planets' -c Commit -c ''") })
    assert.are.same({ "ERROR:  the mock has no answer to: select 2\n", 1 }, { psql("-c 'select 2'") })
    api(p, "PUT", "/servers/postgres/state", { password = "secret" })
    assert.are.equal("1\n", (psql("-c 'SELECT 1'", "secret")))
    contains((psql("-c 'SELECT 1'", "wrong")), "password authentication failed")
    p:stop()
  end)

  it("can be mute", function()
    local p, port = mock("postgres_mute", "postgres")
    local out, code = run("psql 'host=127.0.0.1 port=%d user=moon connect_timeout=2' -c 'SELECT 1'", port)
    assert.are.equal(2, code)
    contains(out, "timeout expired")
    assert.are.same({}, journal(p, "sent"))
    p:stop()
  end)
end)

describe("the mock of a protocol with lengths", function()
  after_each(host.cleanup)

  it("talks to Python's struct", function()
    local p, port = mock("frames", "cards")
    local script = host.write([[
import socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
f = s.makefile("rb")
def say(*bodies):
    for byte in b"".join(struct.pack(">H", len(b)) + b for b in bodies):
        s.sendall(bytes([byte]))
    for _ in bodies:
        print(f.read(struct.unpack(">H", f.read(2))[0]).decode())
def buy(trace, cents):
    return b"0200" + trace + struct.pack(">I", cents) + b"4242424242424242"
say(b"0800000001", buy(b"000002", 0x0a0d00), buy(b"000003", 100))
say(b"0400000003", b"0400000003", b"what")
]], host.folder() .. "/cards.py")
    assert.are.equal("081000000100\n021000000251\n021000000300\n041000000300\n041000000325\n999930\n",
      (run("python3 %s %d", script, port)))
    assert.are.same({}, api(p, "GET", "/servers/cards/state").approved)
    p:stop()
  end)
end)
