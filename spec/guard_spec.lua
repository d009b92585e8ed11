local cjson = require("cjson")
local host = require("support.host")

local TOOLS = { compiler = "cc 12", libc = "glibc 2.36", valgrind = "valgrind-3.19.0" }

-- What the guard says of counts that are given to it, and how it ends.
local function guard(recorded, now, options)
  options = options or {}
  local folder = host.folder()
  local file = folder .. "/recorded"
  if recorded then
    host.write(cjson.encode({ toolchain = options.recorded_with or TOOLS, instructions = recorded }), file)
  end
  host.write(cjson.encode({ toolchain = TOOLS, instructions = now }), folder .. "/now")
  local p = assert(io.popen(("python3 bench/guard.py --recorded %s --counts %s/now %s 2>&1"):format(file, folder,
    options.more or "")))
  local text = p:read("a")
  local _, _, status = p:close()
  return text, status, file
end

describe("bench/guard.py", function()
  after_each(host.cleanup)

  it("shows each path with its change", function()
    local text, status = guard({ ["TCP, lines"] = 2000, UDP = 100 }, { ["TCP, lines"] = 2010, UDP = 99 })
    assert.equal(0, status, text)
    assert.matches("\nTCP, lines +2000 +2010 +%+0%.50%%\n", text)
    assert.matches("\nUDP +100 +99 +%-1%.00%%\n", text)
    assert.not_matches("FAILED", text)
    assert.not_matches("WARNING", text)
  end)

  it("allows just the margin", function()
    local text, status = guard({ UDP = 1000 }, { UDP = 1030 })
    assert.equal(0, status, text)
    text, status = guard({ UDP = 1000 }, { UDP = 1031 })
    assert.equal(1, status, text)
  end)

  it("says in a sentence what is dearer, for each", function()
    local text, status = guard({ TCP = 1000, UDP = 1000, Unix = 1000 }, { TCP = 1050, UDP = 2000, Unix = 1001 })
    assert.equal(1, status)
    local dearer = "\nFAILED: %s takes %s %%%% more instructions than recorded, %d for 1000; 3 %%%% are allowed%%.\n"
    assert.matches(dearer:format("TCP", "5%.00", 1050), text)
    assert.matches(dearer:format("UDP", "100%.00", 2000), text)
    assert.not_matches("FAILED: Unix", text)
  end)

  it("takes another margin", function()
    local text, status = guard({ UDP = 1000 }, { UDP = 1031 }, { more = "--margin 3.5" })
    assert.equal(0, status, text)
    text, status = guard({ UDP = 1000 }, { UDP = 1010 }, { more = "--margin 0.5" })
    assert.equal(1, status, text)
    assert.matches("0.5 %% are allowed", text)
  end)

  it("asks to record what is cheaper", function()
    local text, status = guard({ TCP = 1000, UDP = 1000 }, { TCP = 969, UDP = 970 })
    assert.equal(0, status, text)
    assert.matches("\nTCP is 3%.10 %% cheaper than recorded: record it", text)
    assert.not_matches("UDP is", text)
  end)

  it("fails for a path that is not recorded, and for one that is not measured", function()
    local text, status = guard({ TCP = 1000 }, { UDP = 1000 })
    assert.equal(1, status)
    assert.matches("FAILED: UDP has no recorded count", text)
    assert.matches("FAILED: TCP is recorded, but was not measured", text)
  end)

  it("looks at some paths only when told", function()
    local text, status = guard({ TCP = 1000, UDP = 1000 }, { UDP = 1001 }, { more = "UDP" })
    assert.equal(0, status, text)
    assert.not_matches("TCP", text)
  end)

  it("decides nothing with another toolchain, and says so", function()
    local text, status = guard({ UDP = 1000 }, { UDP = 1500 },
      { recorded_with = { compiler = "cc 14", libc = "glibc 2.36", lua = "5.4.4" } })
    assert.equal(0, status, text)
    assert.matches("UDP +1000 +1500 +%+50%.00%%", text)
    assert.matches("with another toolchain: UDP takes 50%.00 %% more", text)
    assert.matches("WARNING: the recorded counts are of another toolchain, so nothing is decided", text)
    assert.matches("compiler: recorded with cc 14, here cc 12\n", text)
    assert.matches("lua: recorded with 5%.4%.4, here none\n", text)
    assert.matches("valgrind: recorded with none, here valgrind%-3%.19%.0\n", text)
    assert.not_matches("libc:", text)
    assert.matches("make bench%-guard RECORD=1", text)
  end)

  it("records what it then compares with", function()
    local now = { TCP = 1000, UDP = 500 }
    local text, status, file = guard(nil, now, { more = "--record" })
    assert.equal(0, status, text)
    assert.same({ toolchain = TOOLS, instructions = now }, cjson.decode(host.read(file)))
    text, status, file = guard({ TCP = 900, UDP = 400, gone = 1 }, now, { more = "--record" })
    assert.equal(0, status, text)
    assert.matches("TCP +900 +1000 +%+11%.11%%", text)
    assert.same(now, cjson.decode(host.read(file)).instructions)
  end)

  it("records some paths beside the others, if the toolchain is the same", function()
    local text, status, file = guard({ TCP = 900, UDP = 400 }, { UDP = 500 }, { more = "--record UDP" })
    assert.equal(0, status, text)
    assert.same({ TCP = 900, UDP = 500 }, cjson.decode(host.read(file)).instructions)
    text, status, file = guard({ TCP = 900, UDP = 400 }, { UDP = 500 },
      { more = "--record UDP", recorded_with = { compiler = "cc 14" } })
    assert.equal(1, status)
    assert.matches("another toolchain: record all of them", text)
    assert.same({ TCP = 900, UDP = 400 }, cjson.decode(host.read(file)).instructions)
  end)

  it("says how to record when nothing is", function()
    local text, status = guard(nil, { UDP = 1 })
    assert.equal(1, status)
    assert.matches("is not there: make bench%-guard RECORD=1 writes it", text)
  end)
end)
