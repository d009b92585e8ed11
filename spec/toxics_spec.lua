local model = require("support.toxic_model")
local random = require("moonport.toxics.random")
local toxics = require("moonport.toxics")
local virtual = require("support.virtual")

-- Runs f with a pipe on a virtual clock; gives what was delivered, with times in milliseconds, and how it ended.
local function run(options, f)
  local v = virtual.new()
  local log = { got = {}, notes = {} }
  local function ms() return math.floor(v.now * 1e6 + 0.5) / 1e3 end
  options.world = v.world
  options.deliver = options.deliver or function(bytes) table.insert(log.got, { ms(), bytes }) end
  options.close = function(how) log.closed = { ms(), how } end
  options.note = function(toxic, text) table.insert(log.notes, toxic.name .. " " .. text) end
  local function sleep_until(t) v:sleep(t / 1000 - v.now) end
  v:spawn(function()
    local pipe = toxics.pipe(options)
    log.pipe = pipe
    f(pipe, sleep_until, v)
    log.finished = { pipe:finish(), ms() }
  end)
  v:run()
  log.virtual = v
  return log
end

local function text_of(log)
  local out = {}
  for i, d in ipairs(log.got) do out[i] = d[2] end
  return table.concat(out)
end

local function write(...)
  local texts = { ... }
  return function(pipe)
    for _, text in ipairs(texts) do pipe:write(text) end
  end
end

describe("a toxic", function()
  local function refused(why, spec, datagram)
    local ok, err = pcall(toxics.new, spec, datagram)
    assert.is_false(ok)
    assert.are.equal(why, err)
  end

  it("reads Toxiproxy's JSON and the flat form, and gives the JSON back", function()
    local nested = toxics.new { name = "slow", type = "latency", stream = "upstream", toxicity = 0.5,
      attributes = { latency = 100, jitter = 10 }, nth = 2, after_bytes = 7, seed = 9 }
    local flat = toxics.new { name = "slow", type = "latency", stream = "upstream", toxicity = 0.5,
      latency = 100, jitter = 10, nth = 2, after_bytes = 7, seed = 9 }
    assert.are.same(nested:data(), flat:data())
    assert.are.same(flat:data(), toxics.new(flat:data()):data())
    assert.are.same({ latency = 100, jitter = 10 }, flat:data().attributes)
  end)

  it("has Toxiproxy's defaults: a name of type and stream, downstream, toxicity 1", function()
    assert.are.same({ name = "slow_close_downstream", type = "slow_close", stream = "downstream", toxicity = 1,
      attributes = { delay = 0 } }, toxics.new { type = "slow_close" }:data())
  end)

  it("names what is wrong and what would be right", function()
    refused('a toxic must be a table such as {type = "latency", latency = 100}, not "latency"', "latency")
    refused('toxic without a name: type must be a string such as "latency", not nil', {})
    refused('toxic "": name must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . and ..',
      { name = "", type = "latency" })
    refused('toxic x: there is no type "latencey"; did you mean latency?', { name = "x", type = "latencey" })
    refused('toxic x: latency has no field "jiter"; did you mean jitter?', { name = "x", type = "latency", jiter = 1 })
    refused('toxic x: latency has no attribute "delay"; there are jitter, latency',
      { name = "x", type = "latency", attributes = { delay = 1 } })
    refused("toxic latency_downstream: latency must be milliseconds, 0 or more, not -1",
      { type = "latency", latency = -1 })
    refused("toxic limit_data_downstream: limit_data needs bytes: bytes", { type = "limit_data" })
    refused("toxic limit_data_downstream: bytes must be a whole number, bytes, 0 or more, not 1.5",
      { type = "limit_data", bytes = 1.5 })
    refused("toxic noop_downstream: toxicity must be a chance from 0 to 1, not 50", { type = "noop", toxicity = 50 })
    refused('toxic noop_down: stream must be "downstream" or "upstream", not "down"',
      { type = "noop", stream = "down" })
    refused("toxic noop_downstream: nth must be the number of a connection, the first being 1, not 0",
      { type = "noop", nth = 0 })
    refused("toxic slicer_downstream: size_variation must be smaller than average_size (4), not 4",
      { type = "slicer", average_size = 4, size_variation = 4 })
    refused("toxic corrupt_downstream: corrupt needs either rate or at", { type = "corrupt" })
    refused("toxic slicer_downstream: slicer does not work on datagrams, only on streams",
      { type = "slicer", average_size = 1 }, true)
    refused("toxic timeout_downstream: timeout must be 0 for datagrams, which have nothing to close",
      { type = "timeout", timeout = 5 }, true)
    refused("toxic packet_loss_downstream: packet_loss works on datagrams, not on a stream, where nothing is lost "
      .. "or overtaken", { type = "packet_loss", loss_rate = 0.5 }, false)
  end)

  it("has a name of its own in a list", function()
    assert.has_error(function() toxics.list { { type = "noop" }, { type = "noop" } } end,
      "toxic noop_downstream: there is another of this name: give one of them a name of its own")
  end)
end)

describe("on a stream", function()
  it("latency delays each chunk from when it came, and keeps the order", function()
    local log = run({ toxics = { { type = "latency", latency = 100 } } }, function(pipe, sleep_until)
      pipe:write("a")
      sleep_until(30)
      pipe:write("b")
      pipe:write("c")
      sleep_until(400)
      pipe:write("d")
    end)
    assert.are.same({ { 100, "a" }, { 130, "b" }, { 130, "c" }, { 500, "d" } }, log.got)
    assert.are.same({ true, 500 }, log.finished)
  end)

  it("jitter stays within its bounds and lets none overtake", function()
    local log = run({ toxics = { { type = "latency", latency = 100, jitter = 40, seed = 1 } } },
      function(pipe, sleep_until)
        for i = 0, 199 do
          sleep_until(i * 3)
          pipe:write(("%03d"):format(i))
        end
      end)
    local late, early = 0, 1000
    for i, d in ipairs(log.got) do
      assert.are.equal(("%03d"):format(i - 1), d[2])
      local delay = d[1] - (i - 1) * 3
      assert.is_true(delay >= 60 and delay <= 140, delay)
      late, early = math.max(late, delay), math.min(early, delay)
    end
    assert.is_true(late > 125 and late - early > 30)
  end)

  it("bandwidth lets rate kilobytes a second go, a tenth of a second's at a time", function()
    local log = run({ toxics = { { type = "bandwidth", rate = 1 } } }, function(pipe, sleep_until)
      pipe:write(("x"):rep(250))
      pipe:write("y")
      sleep_until(1000)
      pipe:write("z") -- no credit for the time without traffic
    end)
    local sizes = {}
    for i, d in ipairs(log.got) do sizes[i] = { d[1], #d[2] } end
    assert.are.same({ { 100, 100 }, { 200, 100 }, { 250, 50 }, { 251, 1 }, { 1001, 1 } }, sizes)
  end)

  it("bandwidth 0 holds everything until it is changed", function()
    local log = run({ toxics = { { type = "bandwidth", rate = 0 } } }, function(pipe, sleep_until)
      pipe:write("a")
      pipe:write("b")
      sleep_until(5000)
      pipe:update {}
      pipe:write("c")
    end)
    assert.are.same({ { 5000, "a" }, { 5000, "b" }, { 5000, "c" } }, log.got)
  end)

  it("slicer halves chunks until they are of the size, and waits after each slice", function()
    local log = run({ toxics = { { type = "slicer", average_size = 3, delay = 10000 } } }, write("abcdefghij", "kl"))
    assert.are.same({ { 0, "ab" }, { 10, "cde" }, { 20, "fg" }, { 30, "hij" }, { 40, "kl" } }, log.got)
    assert.are.same({ true, 50 }, log.finished)
  end)

  it("slicer varies the sizes within bounds, and never makes an empty slice", function()
    local log = run({ toxics = { { type = "slicer", average_size = 20, size_variation = 19, seed = 3 } } },
      write(("0123456789"):rep(1000)))
    local seen = {}
    for _, d in ipairs(log.got) do
      assert.is_true(#d[2] >= 1 and #d[2] <= 39)
      seen[#d[2]] = true
    end
    assert.are.equal(("0123456789"):rep(1000), text_of(log))
    assert.is_true(#log.got > 300 and seen[10] and seen[30])
  end)

  it("slow_close delays the end alone", function()
    local log = run({ toxics = { { type = "slow_close", delay = 700 } } }, write("bye"))
    assert.are.same({ { 0, "bye" } }, log.got)
    assert.are.same({ true, 700 }, log.finished)
    assert.is_nil(log.closed)
  end)

  it("timeout swallows everything and closes then", function()
    local taken
    local log = run({ toxics = { { type = "timeout", timeout = 250 } } }, function(pipe, sleep_until)
      pipe:write("lost")
      sleep_until(300)
      taken = pipe:write("more")
    end)
    assert.are.same({}, log.got)
    assert.are.same({ 250, "close" }, log.closed)
    assert.is_false(taken)
    assert.are.same({ false, 300 }, log.finished)
  end)

  it("timeout 0 swallows until it is removed, which closes the connection, as in Toxiproxy", function()
    local log = run({ toxics = { { type = "timeout" } } }, function(pipe, sleep_until)
      pipe:write("lost")
      sleep_until(60000)
      assert.is_true(pipe:write("lost too"))
      pipe:update {}
      sleep_until(60001)
      assert.is_false(pipe:write("late"))
    end)
    assert.are.same({}, log.got)
    assert.are.same({ 60000, "close" }, log.closed)
  end)

  it("reset_peer resets so long after the first that comes", function()
    local log = run({ toxics = { { type = "reset_peer", timeout = 100 } } }, function(pipe, sleep_until)
      sleep_until(1000)
      pipe:write("GET")
      sleep_until(1200)
    end)
    assert.are.same({}, log.got)
    assert.are.same({ 1100, "reset" }, log.closed)
    log = run({ toxics = { { type = "reset_peer" } } }, function() end)
    assert.are.same({ 0, "reset" }, log.closed)
    assert.are.same({ false, 0 }, log.finished)
  end)

  it("limit_data closes after exactly so many bytes, in the middle of a chunk or not", function()
    for size = 1, 12 do
      for limit = 0, 12 do
        local log = run({ toxics = { { type = "limit_data", bytes = limit } } }, function(pipe)
          local text = "abcdefghijkl"
          for from = 1, 12, size do pipe:write(text:sub(from, from + size - 1)) end
        end)
        assert.are.equal(("abcdefghijkl"):sub(1, limit), text_of(log))
        assert.are.same({ 0, "close" }, log.closed)
      end
    end
    assert.is_nil(run({ toxics = { { type = "limit_data", bytes = 4 } } }, write("abc")).closed)
  end)

  it("corrupt inverts the byte at a place, or flips bits at a rate", function()
    local log = run({ toxics = { { type = "corrupt", at = 5 } } }, write("abc", "def"))
    assert.are.equal("abcd\x9af", text_of(log))
    local text = ("\0"):rep(100000)
    for _, rate in ipairs { 0, 0.01, 0.5, 1 } do
      log = run({ toxics = { { type = "corrupt", rate = rate, seed = 5 } } }, write(text))
      local _, whole = text_of(log):gsub("\0", "")
      assert.is_true(math.abs((#text - whole) / #text - rate) < 0.005, rate)
      assert.is_nil(text_of(log):gsub("[\0\1\2\4\8\16\32\64\128]", ""):match("."))
    end
  end)

  it("those of the other direction do nothing", function()
    local log = run({ stream = "upstream", toxics = { { type = "latency", latency = 100 } } }, write("a"))
    assert.are.same({ { 0, "a" } }, log.got)
    assert.are.same({}, log.notes)
  end)
end)

describe("a toxic is for", function()
  local function resets(spec, nth)
    spec.type = "reset_peer"
    return run({ nth = nth, toxics = { spec } }, write("a")).closed ~= nil
  end

  it("the nth connection, or the first few", function()
    local by_nth, by_first = {}, {}
    for nth = 1, 5 do
      by_nth[nth], by_first[nth] = resets({ nth = 3 }, nth), resets({ first = 2 }, nth)
    end
    assert.are.same({ false, false, true, false, false }, by_nth)
    assert.are.same({ true, true, false, false, false }, by_first)
  end)

  it("what comes after so many bytes, cut where it is", function()
    local log = run({ toxics = { { type = "reset_peer", after_bytes = 17 } } },
      write("0123456789", "abcdefghij"))
    assert.are.equal("0123456789abcdefg", text_of(log))
    assert.are.same({ 0, "reset" }, log.closed)
    log = run({ toxics = { { type = "latency", latency = 50, after_bytes = 2 } } }, write("abcd"))
    assert.are.same({ { 0, "ab" }, { 50, "cd" } }, log.got)
    log = run({ toxics = { { type = "timeout", timeout = 30, after_bytes = 2 } } }, function(pipe, sleep_until)
      sleep_until(100)
      pipe:write("ab")
      sleep_until(200)
    end)
    assert.are.same({ 130, "close" }, log.closed)
  end)

  it("none with toxicity 0, whatever it is", function()
    for _, spec in ipairs { { type = "reset_peer" }, { type = "timeout", timeout = 1 },
      { type = "limit_data", bytes = 0 }, { type = "latency", latency = 9 }, { type = "slow_close", delay = 9 },
      { type = "corrupt", rate = 1 }, { type = "bandwidth", rate = 0 },
      { type = "slicer", average_size = 1, delay = 9 } } do
      spec.toxicity = 0
      for nth = 1, 200 do
        local log = run({ nth = nth, toxics = { spec } }, function(pipe, sleep_until)
          pipe:write("abc")
          sleep_until(5)
          pipe:update { { type = "noop" }, spec }
          pipe:write("def")
          pipe:update {}
        end)
        assert.are.same({ { 0, "abc" }, { 5, "def" } }, log.got)
        assert.is_nil(log.closed)
        assert.are.same({ true, 5 }, log.finished)
        assert.are.same({ "noop_downstream applies", "noop_downstream is removed" }, log.notes)
      end
    end
  end)

  it("every connection with toxicity 1, and for about its share in between", function()
    local all, some = 0, 0
    for nth = 1, 1000 do
      all = all + (resets({ toxicity = 1 }, nth) and 1 or 0)
      some = some + (resets({ toxicity = 0.3, seed = 77 }, nth) and 1 or 0)
    end
    assert.are.equal(1000, all)
    assert.is_true(some > 250 and some < 350, some)
  end)
end)

describe("chances", function()
  local function everything(seed)
    local out = {}
    for nth = 1, 20 do
      out[nth] = run({ nth = nth, seed = seed, toxics = {
        { type = "latency", latency = 50, jitter = 50, toxicity = 0.5 },
        { type = "slicer", average_size = 10, size_variation = 9, delay = 500, toxicity = 0.7 },
        { type = "corrupt", rate = 0.05, toxicity = 0.5 },
        { type = "limit_data", bytes = 150, toxicity = 0.2 },
      } }, function(pipe, sleep_until)
        for i = 1, 10 do
          sleep_until(i * 7)
          pipe:write(("%d-"):format(i):rep(i))
        end
      end)
      out[nth] = { out[nth].got, out[nth].closed, out[nth].notes, out[nth].finished }
    end
    return out
  end

  it("are the same again with the same seed, bytes and times, whatever else draws", function()
    local first = everything(42)
    math.randomseed(7)
    assert.are.same(first, everything(42))
    assert.are_not.same(first, everything(43))
  end)

  it("of one toxic do not move when another is added", function()
    local jittery = { type = "latency", latency = 50, jitter = 50, seed = 4 }
    local alone = run({ toxics = { jittery } }, write("a", "b", "c"))
    local two = run({ toxics = { { type = "corrupt", rate = 0, seed = 4 }, jittery } }, write("a", "b", "c"))
    assert.are.same(alone.got, two.got)
  end)

  it("can be replayed by the seed that a note tells", function()
    local slicer = { type = "slicer", average_size = 5, size_variation = 4 }
    local log = run({ nth = 3, toxics = { slicer } }, write(("x"):rep(100)))
    slicer.seed = math.tointeger(tonumber(log.notes[1]:match("^slicer_downstream applies, seed (%d+)$")))
    local again = run({ nth = 3, toxics = { slicer } }, write(("x"):rep(100)))
    assert.are.same(log.got, again.got)
    slicer.seed = slicer.seed + 1
    assert.are_not.same(log.got, run({ nth = 3, toxics = { slicer } }, write(("x"):rep(100))).got)
  end)
end)

describe("an update", function()
  it("adds: what comes from then on is late, what had gone is not", function()
    local log = run({ toxics = {} }, function(pipe, sleep_until)
      pipe:write("a")
      pipe:update { { type = "latency", latency = 100 } }
      pipe:write("b")
      sleep_until(300)
    end)
    assert.are.same({ { 0, "a" }, { 100, "b" } }, log.got)
  end)

  it("removes: what was held goes on at once, in order, through those that stay", function()
    local slow, slicer = { type = "latency", latency = 1000 }, { type = "slicer", average_size = 1, delay = 1000 }
    local log = run({ toxics = { slow, slicer } }, function(pipe, sleep_until)
      pipe:write("ab")
      pipe:write("cd")
      sleep_until(10)
      pipe:update { slicer }
      pipe:write("ef")
    end)
    assert.are.same({ { 10, "a" }, { 11, "b" }, { 12, "c" }, { 13, "d" }, { 14, "e" }, { 15, "f" } }, log.got)
  end)

  it("changes: the chunk that was held goes, those behind it come under the new values", function()
    local log = run({ toxics = { { type = "latency", latency = 1000 } } }, function(pipe, sleep_until)
      pipe:write("a")
      pipe:write("b")
      sleep_until(10)
      pipe:update { { type = "latency", latency = 30 } }
    end)
    assert.are.same({ { 10, "a" }, { 30, "b" } }, log.got)
  end)

  it("changes a slicer: the rest of the chunk goes whole, and the next waits as long as now said", function()
    local log = run({ toxics = { { type = "slicer", average_size = 1, delay = 1000000 } } }, function(pipe, sleep_until)
      pipe:write("abcd")
      pipe:write("ef")
      sleep_until(10)
      pipe:update { { type = "slicer", average_size = 1, delay = 2000 } }
    end)
    assert.are.same({ { 0, "a" }, { 10, "bcd" }, { 10, "e" }, { 12, "f" } }, log.got)
  end)

  it("changes a slow_close: the new delay counts from then", function()
    local log = run({ toxics = { { type = "slow_close", delay = 100 } } }, function(pipe, sleep_until, v)
      v:spawn(function()
        sleep_until(80)
        pipe:update { { type = "slow_close", delay = 50 } }
      end)
    end)
    assert.are.same({ true, 130 }, log.finished)
  end)

  it("keeps what a toxic has counted", function()
    local log = run({ toxics = { { type = "limit_data", bytes = 10 } } }, function(pipe)
      pipe:write("abcdef")
      pipe:update { { type = "limit_data", bytes = 8 }, { type = "noop" } }
      pipe:write("ghijkl")
    end)
    assert.are.equal("abcdefgh", text_of(log))
  end)

  it("counts after_bytes from the beginning of the connection", function()
    local log = run({ toxics = {} }, function(pipe)
      pipe:write("abcdef")
      pipe:update { { type = "reset_peer", after_bytes = 8 } }
      pipe:write("ghijkl")
    end)
    assert.are.equal("abcdefgh", text_of(log))
  end)

  it("ends a wait of finish", function()
    local log = run({ toxics = { { type = "slow_close", delay = 60000 } } }, function(pipe, sleep_until, v)
      pipe:write("a")
      v:spawn(function()
        sleep_until(20)
        pipe:update {}
      end)
    end)
    assert.are.same({ true, 20 }, log.finished)
  end)

  it("starts the clock of a timeout on a connection where nothing happens", function()
    local log = run({ toxics = {} }, function(pipe, sleep_until)
      sleep_until(100)
      pipe:update { { type = "timeout", timeout = 50 } }
      sleep_until(1000)
    end)
    assert.are.same({ 150, "close" }, log.closed)
  end)

  it("loses and reorders nothing, whatever is changed and when", function()
    local pool = {
      { type = "latency", latency = 30 }, { type = "latency", latency = 5, jitter = 5 },
      { type = "bandwidth", rate = 2 }, { type = "bandwidth", rate = 0 },
      { type = "slicer", average_size = 3, size_variation = 2, delay = 700 },
      { type = "slow_close", delay = 10 }, { type = "noop" }, { type = "corrupt", rate = 0 },
      { type = "latency", latency = 10, name = "second", after_bytes = 40 },
    }
    for seed = 1, 300 do
      local draw = random.new(seed, "updates")
      local function some()
        local list, names = {}, {}
        for _ = 1, math.floor(draw() * 4) do
          local spec = pool[1 + math.floor(draw() * #pool)]
          if not names[spec.name or spec.type] then list[#list + 1] = spec end
          names[spec.name or spec.type] = true
        end
        return list
      end
      local written = {}
      local log = run({ seed = seed, toxics = some() }, function(pipe, sleep_until)
        for i = 1, 40 do
          written[i] = ("<%d>"):format(i):rep(1 + math.floor(draw() * 5))
          pipe:write(written[i])
          if draw() < 0.3 then pipe:update(some()) end
          if draw() < 0.5 then sleep_until(i * 6) end
        end
        pipe:update {}
      end)
      assert.are.equal(table.concat(written), text_of(log))
      assert.is_true(log.finished[1])
      assert.are.equal(0, log.pipe.queued)
    end
  end)
end)

describe("a writer", function()
  it("waits when more than 1 MiB is under way, and goes on as it is delivered", function()
    local chunk, times = ("x"):rep(256 * 1024), {}
    run({ toxics = { { type = "latency", latency = 100 } } }, function(pipe, _, v)
      for i = 1, 8 do
        pipe:write(chunk)
        times[i] = v.now * 1000
      end
    end)
    assert.are.same({ 0, 0, 0, 0, 100, 100, 100, 100 }, times)
  end)

  it("waits when too many small chunks are", function()
    local most = 0
    run({ toxics = { { type = "latency", latency = 100 } } }, function(pipe)
      for _ = 1, 20000 do
        pipe:write("x")
        most = math.max(most, pipe.queued)
      end
    end)
    assert.is_true(most > 1000 and most < 10000)
  end)

  it("gets what deliver raised, as it was, at once or with the next write", function()
    local broken = setmetatable({}, { __tostring = function() return "ECONNRESET" end })
    local function deliver() error(broken) end
    local caught = {}
    run({ toxics = {}, deliver = deliver }, function(pipe)
      caught[1] = select(2, pcall(pipe.write, pipe, "a"))
      caught[2] = select(2, pcall(pipe.finish, pipe))
      pipe.finish = function() end
    end)
    run({ toxics = { { type = "latency", latency = 1 } }, deliver = deliver }, function(pipe, sleep_until)
      assert.is_true(pipe:write("a"))
      sleep_until(10)
      caught[3] = select(2, pcall(pipe.write, pipe, "b"))
      pipe.finish = function() end
    end)
    for i = 1, 3 do assert.are.equal(broken, caught[i]) end
  end)

  it("is not held up by a toxic that closes, and is told", function()
    local taken
    local log = run({ toxics = { { type = "bandwidth", rate = 1 }, { type = "limit_data", bytes = 100 } } },
      function(pipe)
        taken = pipe:write(("x"):rep(2 * 1024 * 1024))
      end)
    assert.is_false(taken)
    assert.are.same({ 100, "close" }, log.closed)
    assert.are.equal(100, #text_of(log))
  end)

  it("that is held up by the peer does not get the bandwidth of that time afterwards", function()
    local got, v = {}, nil
    run({ toxics = { { type = "bandwidth", rate = 1 } }, deliver = function(bytes)
      if #got == 0 then v:sleep(60) end
      table.insert(got, { math.floor(v.now * 1000 + 0.5), #bytes })
    end }, function(pipe, _, virtual_)
      v = virtual_
      pipe:write(("x"):rep(300))
    end)
    -- One that was ready goes at once, as in Toxiproxy; not the minute's worth.
    assert.are.same({ { 60100, 100 }, { 60100, 100 }, { 60200, 100 } }, got)
  end)

  it("of another task keeps the order while deliver waits", function()
    local got, v = {}, nil
    run({ toxics = {}, deliver = function(bytes)
      v:sleep(0.01 / tonumber(bytes))
      table.insert(got, bytes)
    end }, function(pipe, sleep_until, virtual_)
      v = virtual_
      for i = 1, 5 do
        v:spawn(function() pipe:write(tostring(i)) end)
      end
      sleep_until(5)
    end)
    assert.are.same({ "1", "2", "3", "4", "5" }, got)
  end)

  it("costs one task, however many toxics", function()
    local log = run({ toxics = { { type = "latency" }, { type = "bandwidth", rate = 9 }, { type = "noop" } } },
      write("a"))
    assert.are.equal(2, log.virtual.spawned) -- the spec's own and the pipe's
  end)
end)

describe("on datagrams", function()
  local function datagrams(specs, n, gap, seed)
    return run({ datagram = true, seed = seed or 1, toxics = specs }, function(pipe, sleep_until)
      for i = 1, n do
        sleep_until(i * (gap or 1))
        pipe:write(tostring(i))
      end
    end)
  end

  local function order(log)
    local out = {}
    for i, d in ipairs(log.got) do out[i] = tonumber(d[2]) end
    return out
  end

  it("packet_loss drops at its rate, and in bursts with a correlation", function()
    local function bursts(spec)
      local got = order(datagrams({ spec }, 10000))
      local lost, runs, last = 10000 - #got, 0, 0
      for _, i in ipairs(got) do
        if i > last + 1 then runs = runs + 1 end
        last = i
      end
      return lost, runs
    end
    local lost, runs = bursts { type = "packet_loss", loss_rate = 0.1 }
    assert.is_true(lost > 900 and lost < 1100 and lost / runs < 1.2)
    lost, runs = bursts { type = "packet_loss", loss_rate = 0.1, correlation = 0.6 }
    assert.is_true(lost > 1500 and lost / runs > 2.5)
    assert.are.same({}, order(datagrams({ { type = "packet_loss", loss_rate = 1 } }, 9)))
    assert.are.same({ 1, 2, 3 }, order(datagrams({ { type = "packet_loss", loss_rate = 0 } }, 3)))
  end)

  it("duplicate doubles, reorder lets the next one overtake", function()
    assert.are.same({ 1, 1, 2, 2 }, order(datagrams({ { type = "duplicate", rate = 1 } }, 2)))
    assert.are.same({ 2, 1, 4, 3, 5 }, order(datagrams({ { type = "reorder", rate = 1 } }, 5)))
    assert.are.same({ { 110, "1" }, { 210, "2" } },
      datagrams({ { type = "reorder", rate = 1, delay = 10 } }, 2, 100).got)
  end)

  it("jitter lets some overtake, and a latency alone none", function()
    local got = order(datagrams({ { type = "latency", latency = 50, jitter = 50 } }, 100))
    local sorted = order(datagrams({ { type = "latency", latency = 50 } }, 100))
    assert.are.equal(100, #got)
    assert.are_not.same(sorted, got)
    table.sort(got)
    assert.are.same(sorted, got)
  end)

  it("none is cut, and an empty one is one", function()
    local list = { { type = "bandwidth", rate = 1 }, { type = "noop", after_bytes = 1 } }
    local log = run({ datagram = true, toxics = list }, write(("x"):rep(300), "", "y"))
    assert.are.same({ { 300, ("x"):rep(300) }, { 300, "" }, { 301, "y" } }, log.got)
  end)

  it("a slicer is refused when the pipe is made", function()
    assert.has_error(function() toxics.pipe { datagram = true, toxics = { { type = "slicer", average_size = 1 } } } end,
      "toxic slicer_downstream: slicer does not work on datagrams, only on streams")
  end)
end)

describe("toxics in a row do what a simple model says", function()
  local streams = {
    noop = function() return {} end,
    latency = function(draw) return { latency = draw(200) } end,
    bandwidth = function(draw) return { rate = 1 + draw(5) } end,
    slicer = function(draw) return { average_size = 1 + draw(30), delay = draw(5000) } end,
    slow_close = function(draw) return { delay = draw(300) } end,
    timeout = function(draw) return { timeout = draw(3) * (100 + draw(500)) + 0.37 } end,
    reset_peer = function(draw) return { timeout = draw(200) } end,
    limit_data = function(draw) return { bytes = draw(400) } end,
    corrupt = function(draw) return { at = 1 + draw(300) } end,
  }
  local on_datagrams = {
    noop = streams.noop, latency = streams.latency, bandwidth = streams.bandwidth, corrupt = streams.corrupt,
    timeout = function() return { timeout = 0 } end,
    packet_loss = function(draw) return { loss_rate = draw(2) } end,
    duplicate = function(draw) return { rate = draw(2) } end,
    reorder = function(draw) return { rate = draw(2), delay = draw(60) + 0.21 } end,
  }

  local function spec_of(makers, type, i, draw)
    local spec = makers[type](draw)
    spec.type, spec.name = type, type .. i
    spec.after_bytes = draw(4) == 0 and draw(200) or nil
    return spec
  end

  local function traffic(draw)
    local list, t = {}, 0
    for i = 1, 1 + draw(8) do
      t = t + draw(3) * draw(90)
      list[i] = { t = t / 1000, stamp = t / 1000, data = string.char(96 + i):rep(1 + draw(150)) }
    end
    t = t + draw(300)
    list[#list + 1] = { t = t / 1000, eof = true }
    return list
  end

  local function compare(specs, list, datagram, message)
    local log = run({ toxics = specs, datagram = datagram }, function(pipe, sleep_until)
      for _, e in ipairs(list) do
        sleep_until(e.t * 1000)
        if e.data then pipe:write(e.data) end
      end
    end)
    local last
    local expected = model.through(list, specs, datagram)
    for i, e in ipairs(expected) do
      last = e
      local got = log.got[i] or {}
      if not e.eof then
        assert.are.equal(e.data, got[2], message)
        assert.is_true(got[1] and math.abs(got[1] - e.t * 1000) < 0.01, message)
      end
    end
    assert.are.equal(#expected - (last.eof and 1 or 0), #log.got, message)
    local ended = log.closed or { log.finished[2] }
    assert.is_true(math.abs(ended[1] - last.t * 1000) < 0.01, message)
    assert.are.equal(last.how, ended[2], message)
  end

  local function pairs_of(makers, datagram, runs)
    for one in pairs(makers) do
      for two in pairs(makers) do
        for seed = 1, runs do
          local random_ = random.new(seed, one .. two)
          local function draw(n) return math.floor(random_() * n) end
          local specs = { spec_of(makers, one, 1, draw), spec_of(makers, two, 2, draw) }
          if draw(3) == 0 then specs[3] = spec_of(makers, seed % 2 == 0 and one or "latency", 3, draw) end
          compare(specs, traffic(draw), datagram, ("%s, %s, seed %d"):format(one, two, seed))
        end
      end
    end
  end

  it("all pairs on streams", function() pairs_of(streams, false, 40) end)
  it("all pairs on datagrams", function() pairs_of(on_datagrams, true, 40) end)
end)
