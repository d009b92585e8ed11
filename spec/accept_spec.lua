--- Accepting: its limits, its failures and its addresses.

local host = require("support.host")
local sys = host.sys

-- "a=1 b=2" as a table.
local function fields(line)
  local out = {}
  for name, n in line:gmatch("(%S+)=(%S+)") do out[name] = tonumber(n) end
  return out
end

local function stats(client) return fields(client:ask("stats")) end

-- Connects n clients; each has sent its number.
local function crowd(url, n, options)
  local clients = {}
  for i = 1, n do
    local c = host.connect(url, options)
    assert(c:send(i .. "\n"))
    c.number = i
    clients[i] = c
  end
  return clients
end

-- Takes the replies that are there: splits into those who have theirs and the others.
local function sort_out(clients)
  local served, waiting = {}, {}
  for _, c in ipairs(clients) do
    if sys.poll(c.fd, "r", 0) then
      assert.are.equal(tostring(c.number), c:line())
      served[#served + 1] = c
    else
      waiting[#waiting + 1] = c
    end
  end
  return served, waiting
end

-- Waits until `n` of them have been served, and takes their replies.
local function until_served(n, clients)
  local served, waiting = {}, clients
  host.eventually(n .. " served", function()
    local now
    now, waiting = sort_out(waiting)
    table.move(now, 1, #now, #served + 1, served)
    return #served >= n
  end)
  return served, waiting
end

local function close_all(clients)
  for _, c in ipairs(clients) do c:close() end
end

-- The counting handler on one port, an echo as the canary on another, few descriptors.
local function start_starving()
  local p = host.start("spec/fixtures/counters.lua", {
    nofile = 64, listen = "",
    args = { "--listen=tcp://127.0.0.1:0", "scripts/echo.lua", "--listen=tcp://127.0.0.1:0" },
  })
  return p, p:url("counters"), p:url("echo")
end

-- At most one line a second for a cause, however long it lasts.
local function assert_quiet(p, event, since)
  local lines = #p:find(event)
  local seconds = sys.now() - since
  assert(lines >= 1 and lines <= seconds + 2, ("%d x '%s' in %.1f s"):format(lines, event, seconds))
end

local function assert_baseline(p, descriptors)
  host.eventually("descriptors back at " .. descriptors, function() return p:descriptors() == descriptors end)
end

describe("without free descriptors", function()
  after_each(host.cleanup)

  -- torture list 1
  it("clients wait, and are served as soon as one is free", function()
    local began = sys.now()
    local p, url, canary_url = start_starving()
    local descriptors = p:descriptors()
    local canary <close> = host.connect(canary_url)
    local spare = host.connect(canary_url)
    assert.are.equal("here", canary:ask("here"))
    assert.are.equal("here", spare:ask("here"))

    local clients = crowd(url, 200)
    p:find("accepting paused", true)
    local why = p:find("accepting paused")[1].why
    assert.are.equal("Too many open files", why)
    assert.are.equal("still here", canary:ask("still here"))
    local served, waiting = sort_out(clients)
    assert(#served >= 20 and #waiting >= 100, #served .. " served")

    -- a descriptor of the same server becomes free
    local freed = sys.now()
    served[1]:close()
    local now
    now, waiting = until_served(1, waiting)
    assert(sys.now() - freed < host.SOON, "the next waited too long")
    served[1] = now[1]

    -- one that this server does not hear of
    freed = sys.now()
    spare:close()
    now, waiting = until_served(1, waiting)
    assert(sys.now() - freed < host.SOON, "the next waited too long")
    served[#served + 1] = now[1]

    local total = #served + 1 -- the one that was closed
    while #waiting > 0 do
      close_all(served)
      served, waiting = until_served(1, waiting)
      total = total + #served
    end
    close_all(served)
    assert.are.equal(200, total)
    assert.are.equal("here", canary:ask("here"))
    canary:close()
    assert_baseline(p, descriptors)
    assert_quiet(p, "accepting paused", began)
    assert.are.equal(0, p:stop().errors)
  end)

  it("it tries again at a measured pace and needs no processor time", function()
    local p, url = start_starving()
    local descriptors = p:descriptors()
    local watcher <close> = host.connect(url)
    assert.are.equal("here", watcher:ask("here"))
    local clients = crowd(url, 100)
    p:find("accepting paused", true)
    local cpu = sys.cpu(p.pid)
    local failed = fields(watcher:ask("watch")).accept_errors
    assert(failed >= 4 and failed <= 21, failed .. " tries in a second") -- every 50 to 200 ms
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy while starved")
    close_all(clients)
    watcher:close()
    assert_baseline(p, descriptors)
    p:stop()
  end)

  -- torture list 2
  it("waiters that hang up leave it calm", function()
    local began = sys.now()
    local p, url, canary_url = start_starving()
    local descriptors = p:descriptors()
    local canary <close> = host.connect(canary_url)
    assert.are.equal("here", canary:ask("here"))
    local watcher <close> = host.connect(url)
    assert.are.equal("here", watcher:ask("here"))
    local clients = crowd(url, 200)
    p:find("accepting paused", true)
    local served, waiting = sort_out(clients)
    for i, c in ipairs(waiting) do
      if i % 2 == 0 then c:close() else c:reset() end
    end
    local cpu = sys.cpu(p.pid)
    local failed = fields(watcher:ask("watch")).accept_errors
    assert(failed <= 21, failed .. " tries in a second")
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy while starved")
    assert.are.equal("here", canary:ask("here"))
    close_all(served)
    local late <close> = host.connect(url)
    assert.are.equal("late", late:ask("late"))
    late:close()
    watcher:close()
    canary:close()
    assert_baseline(p, descriptors)
    assert_quiet(p, "accepting paused", began)
    assert.are.equal(0, p:stop().errors)
  end)

  -- torture list 2: the queue is empty, and yet accept says EMFILE
  it("an empty queue at the limit is no reason to spin", function()
    local p, url = start_starving()
    local descriptors = p:descriptors()
    local clients, watcher = {}, nil
    repeat -- one after another, each accepted, until the last descriptor is taken
      local c = host.connect(url)
      c.number = #clients + 1
      clients[#clients + 1] = c
      assert.are.equal("here", c:ask("here"))
      watcher = watcher or c
    until p:descriptors() >= 64 or #clients == 64
    assert.are.equal(64, p:descriptors())
    local cpu = sys.cpu(p.pid)
    local failed = fields(watcher:ask("watch")).accept_errors
    assert(failed <= 21, failed .. " tries in a second")
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy while starved")
    close_all(clients)
    local late <close> = host.connect(url)
    assert.are.equal("late", late:ask("late"))
    late:close()
    assert_baseline(p, descriptors)
    p:stop()
  end)
end)

describe("when accept fails", function()
  after_each(host.cleanup)

  -- torture list 4
  for _, name in ipairs { "ECONNABORTED", "EPROTO", "EINTR", "EPERM", "ENETDOWN" } do
    it("with " .. name .. " it goes on at once and loses nobody", function()
      local p = host.start("spec/fixtures/counters.lua", { inject = { "accept4:error=" .. name .. ":when=1..3" } })
      local descriptors = p:descriptors()
      local clients = crowd(p:url(), 5)
      until_served(5, clients)
      assert(stats(clients[1]).accept_errors >= 3)
      assert.are.same({}, p:find("accepting paused"))
      close_all(clients)
      assert_baseline(p, descriptors)
      local last = p:stop()
      assert.are.equal(5, last.requests)
      assert.are.equal(0, last.errors)
    end)
  end

  -- torture list 3, shorter: the pause is a tenth of a second for each
  for _, name in ipairs { "ENFILE", "ENOBUFS", "ENOMEM" } do
    it("with " .. name .. " it pauses, says so once a second, and serves everybody", function()
      local began = sys.now()
      local p = host.start("spec/fixtures/counters.lua", { inject = { "accept4:error=" .. name .. ":when=1..12" } })
      local clients = crowd(p:url(), 5)
      until_served(5, clients)
      assert(sys.now() - began > 11 * 0.05, "not paced")
      assert.are.equal(12, stats(clients[1]).accept_errors)
      assert_quiet(p, "accepting paused", began)
      close_all(clients)
      assert.are.equal(5, p:stop().requests)
    end)
  end

  -- torture list 5
  it("a connection reset before it was accepted is a request without a peer", function()
    local p = host.start(host.write([[
      local moonport = require("moonport")
      local H = {}
      function H:handle()
        local peer, why, errno = self.request:getpeername()
        moonport.log("info", ("peer %s %s %s"):format(peer and peer[1], why, errno))
        local data, message, code = self.request:recv(10)
        moonport.log("info", ("data %s %s %s"):format(data, message, code))
        self.rfile:readline()
      end
      return H
    ]]), { args = { "--mixin=sync" } })
    local descriptors = p:descriptors()
    local first = host.connect(p:url())
    first:send("x")
    host.eventually("the first is being handled", function() return #p:find("script") == 2 end)
    host.connect(p:url()):reset()
    local last <close> = host.connect(p:url())
    last:send("y")
    first:close()
    host.eventually("all three were handled", function() return #p:find("script") == 6 end)
    local said = {}
    for i, e in ipairs(p:find("script")) do said[i] = e.message end
    assert.are.same({
      "peer 127.0.0.1 nil nil", "data x nil nil",
      "peer nil Transport endpoint is not connected 107", "data nil Connection reset by peer 104",
      "peer 127.0.0.1 nil nil", "data y nil nil",
    }, said)
    last:close()
    assert_baseline(p, descriptors)
    assert.are.equal(0, p:stop().errors)
  end)
end)

describe("at a ceiling", function()
  after_each(host.cleanup)

  -- torture list 6
  it("max_connections are served and the others wait their turn", function()
    local p = host.start("spec/fixtures/counters.lua", { args = { "--option=max_connections=100" } })
    local descriptors = p:descriptors()
    local clients = crowd(p:url(), 150)
    local served, waiting = until_served(100, clients)
    assert.are.equal(100, #served)
    assert.are.equal(100, stats(served[1]).active)
    assert.are.equal(0, #(sort_out(waiting)))

    local cpu = sys.cpu(p.pid)
    assert.are.equal(0, fields(served[1]:ask("watch")).accept_errors)
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy at the ceiling")

    served[100]:close()
    served[100] = nil
    local next_one
    next_one, waiting = until_served(1, waiting)
    assert.are.equal(1, #next_one)
    assert.are.equal(49, #waiting)
    close_all(served)
    local rest = until_served(49, waiting)
    local seen = stats(next_one[1])
    assert.are.equal(100, seen.peak)
    assert.are.equal(150, seen.requests)
    close_all(next_one)
    close_all(rest)
    assert_baseline(p, descriptors)
    p:stop()
  end)

  -- torture list 7
  it("what fits the backlog of a busy sync server is served, and what does not is counted", function()
    local p = host.start("spec/fixtures/counters.lua", { args = { "--mixin=sync", "--option=request_queue_size=2" } })
    local descriptors = p:descriptors()
    local busy = host.connect(p:url())
    assert.are.equal(0, stats(busy).drops)
    local queued, knocking = {}, {}
    for _ = 1, 20 do
      local fd = assert(sys.socket(p:url()))
      sys.connect(fd, p:url())
      local list = sys.poll(fd, "w", 0.02) and queued or knocking
      list[#list + 1] = fd
    end
    assert(#queued >= 2 and #queued <= 4, #queued .. " in a queue of 2")
    assert(stats(busy).drops >= #knocking)
    busy:close()
    for i, fd in ipairs(queued) do
      assert(sys.send(fd, i .. "\n"))
      assert.is_true(sys.poll(fd, "r", host.LIMIT))
      assert.are.equal(i .. "\n", sys.recv(fd))
      sys.close(fd)
    end
    -- the others were not refused: they knock again, and the first of them comes in
    local late = host.eventually("one of those that did not fit", function()
      for i, fd in ipairs(knocking) do
        if sys.poll(fd, "w", 0) then return table.remove(knocking, i) end
      end
    end)
    assert.are.equal(0, sys.error(late))
    sys.close(late)
    for _, fd in ipairs(knocking) do sys.close(fd) end
    assert_baseline(p, descriptors)
    p:stop()
  end)
end)

describe("a listening address", function()
  after_each(host.cleanup)

  -- A port that was free a moment ago.
  local function free_port()
    local fd = assert(sys.socket("tcp://127.0.0.1:0"))
    assert(sys.bind(fd, "tcp://127.0.0.1:0"))
    local _, port = sys.name(fd)
    sys.close(fd)
    return port
  end

  -- torture list 9
  it("that is taken ends the program at once, and the others are not left bound", function()
    local taken = assert(sys.socket("tcp://127.0.0.1:0"))
    assert(sys.bind(taken, "tcp://127.0.0.1:0"))
    assert(sys.listen(taken))
    local _, port = sys.name(taken)
    local free = "tcp://127.0.0.1:" .. free_port()
    local folder = host.folder()
    local began = sys.now()
    local code, out, err = host.run {
      "serve", "scripts/echo.lua", "--ready-file=" .. folder .. "/ready",
      "--listen=" .. free, "--listen=unix://" .. folder .. "/s", "--listen=tcp://127.0.0.1:" .. port,
    }
    assert(sys.now() - began < host.SOON, "it took too long")
    assert.are.equal(111, code)
    assert.are.equal("", out)
    assert.are.equal("moonport: cannot listen on tcp://127.0.0.1:" .. port .. ": the address is already in use\n", err)
    assert.is_nil(sys.stat(folder .. "/s"))
    assert.is_nil(sys.stat(folder .. "/ready"))
    local fd = assert(sys.socket(free))
    assert(sys.bind(fd, free), "left bound")
    sys.close(fd)
    sys.close(taken)
  end)

  -- torture list 10
  it("with old connections in TIME_WAIT can be had again, but not while it is served", function()
    local script = host.write([[
      local H = {}
      function H:handle() self.wfile:write("bye\n") end
      return H
    ]])
    local p = host.start(script)
    local url = p:url()
    local port = p.ready.servers.script.port
    for _ = 1, 3 do
      local c <close> = host.connect(url)
      assert.are.equal("bye\n", c:all()) -- the server closes first
    end
    p:stop()
    local waiting = (" 0100007F:%04X %%x+:%%x+ 06 "):format(port)
    assert.is_truthy(host.read("/proc/net/tcp"):find(waiting), "nothing in TIME_WAIT: this shows nothing")

    p = host.start(script, { listen = url })
    assert.are.equal(url, p:url())
    local code, _, err = host.run { "serve", script, "--listen=" .. url }
    assert.are.equal(111, code)
    assert.are.equal("moonport: cannot listen on " .. url .. ": the address is already in use\n", err)
    local c <close> = host.connect(url)
    assert.are.equal("bye\n", c:all())
    p:stop()
  end)

  -- torture list 11
  it("[::] takes IPv4 clients under their own address", function()
    local p = host.start("spec/fixtures/counters.lua", { listen = "tcp://[::]:0" })
    local server = p.ready.servers.counters
    local c <close> = host.connect("tcp://127.0.0.1:" .. server.port)
    assert.are.equal("127.0.0.1", c:ask("peer"))
    local c6 <close> = host.connect("tcp://[::1]:" .. server.port)
    assert.are.equal("::1", c6:ask("peer"))
    c:close()
    c6:close()
    p:stop()
  end)

  -- torture list 11
  it("[::] lets verify_request compare IPv4 addresses as they are written", function()
    local p = host.start(host.write([[
      local H = { server = {} }
      function H.server.verify_request(server, request, client_address)
        return client_address[1] == "127.0.0.1" and client_address.host == "127.0.0.1"
          and request:getpeername()[1] == "127.0.0.1" and server.name == "script"
      end
      function H:setup() self.wfile:write("welcome\n") end
      function H:handle() self.wfile:write(tostring(self.client_address), "\n") end
      return H
    ]]), { listen = "tcp://[::]:0" })
    local descriptors = p:descriptors()
    local port = p.ready.servers.script.port
    local allowed <close> = host.connect("tcp://127.0.0.1:" .. port)
    local _, from = sys.name(allowed.fd)
    assert.are.equal(("welcome\n127.0.0.1:%d\n"):format(from), allowed:all())
    local other <close> = host.connect("tcp://127.0.0.1:" .. port, { bind = "tcp://127.0.0.2:0" })
    assert.are.same({ "" }, { other:all() })
    local six <close> = host.connect("tcp://[::1]:" .. port)
    assert.are.same({ "" }, { six:all() })
    assert.are.equal(2, #p:find("refused"))
    assert.are.same({}, p:find("handler error"))
    allowed:close()
    other:close()
    six:close()
    assert_baseline(p, descriptors)
    p:stop()
  end)

  it("[::] with ipv6_v6only refuses IPv4 clients", function()
    local p, port, held
    repeat -- until its port is nobody else's under IPv4
      if p then p:stop() end
      p = host.start("scripts/echo.lua", { listen = "tcp://[::]:0", args = { "--option=ipv6_v6only=true" } })
      port = math.tointeger(p.ready.servers.echo.port)
      held = assert(sys.socket("tcp://127.0.0.1:0"))
      local free = sys.bind(held, "tcp://127.0.0.1:" .. port)
      if not free then sys.close(held) end
    until free
    assert.has_error(function() host.connect("tcp://127.0.0.1:" .. port) end,
      "connect to tcp://127.0.0.1:" .. port .. ": errno 111")
    local c <close> = host.connect("tcp://[::1]:" .. port)
    assert.are.equal("here", c:ask("here"))
    c:close()
    sys.close(held)
    p:stop()
  end)
end)
