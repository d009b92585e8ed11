-- The code is replaced again and again under load: nobody notices but by the version that answers.
-- MOONPORT_RELOADS=1000 makes it long, and prints figures.

local host = require("support.host")
local replace = require("support.replace")

local reloads = tonumber(os.getenv("MOONPORT_RELOADS"))

local rows = {
  { name = "async", args = {} },
  { name = "threading", args = { "--mixin=threading", "-o", "max_threads=110" }, places = 110 },
  -- A process for each request, and as many streams as there are places for them beside the others.
  { name = "forking", args = { "--mixin=forking", "-o", "max_children=200" } },
  { name = "forking, pre-forked", args = { "--mixin=forking", "-o", "max_children=200", "-o",
    "max_requests_per_child=50" } },
  { name = "2 workers", args = { "--workers=2" } },
  { name = "2 workers, threading",
    args = { "--workers=2", "--mixin=threading", "-o", "max_threads=110" }, places = 220 },
  -- One request at a time: a stream would be the only one.
  { name = "sync", args = { "--mixin=sync" }, streams = 0 },
}

describe("replacing the code under load", function()
  after_each(host.cleanup)

  local function parts(from, to, version)
    return ("for i = %d, %d do self.wfile:write(%d, ' ', i, ' x\\n') end "):format(from, to, version)
  end
  for what, reply in pairs {
    ["it ended in order after 3 parts"] = parts(1, 3, 5), ["a part is of 6"] = parts(1, 4, 5) .. parts(5, 8, 6),
    ["4 was live when it was opened"] = parts(1, 8, 3) .. "self.wfile:write('3 end\\n')",
  } do
    it("would be noticed: " .. what, function()
      local script = "local H = {} function H:handle() self.rfile:read() %s end return H"
      local p = host.start(host.write(script:format(reply)))
      local visitors = replace.visit(p:url(), 100, 0, 100)
      visitors:tell("least 4")
      host.sys.poll(-1, "r", 0.1)
      visitors:tell("pause")
      local seen = visitors:done()
      assert.is_true(seen.failures > 0)
      assert.is_truthy(seen.failure:find(what, 1, true), seen.failure)
      p:stop()
    end)
  end

  for _, row in ipairs(rows) do
    it("fails nobody: " .. row.name, function()
      row.reloads = reloads or row.few or 30
      local seen = replace.run(row)
      if reloads then
        io.write(("\n%s: %d reloads in %.1f s; %d connections (%d/s), %d lines of streams, %d streams moved, "
          .. "%d failures; round trip %.1f ms, 99.9 %%: %.1f ms, max %.1f ms; RSS %s KiB\n"):format(row.name,
          row.reloads, seen.seconds, seen.connections, seen.per_second, seen.messages, seen.moves, seen.failures,
          seen.median_us / 1000, seen.p999_us / 1000, seen.max_us / 1000, table.concat(seen.memory, " ")))
      end
      assert.are.equal(0, seen.failures, seen.failure)
      assert.is_true(seen.connections > 100)
      assert.is_true(row.streams == 0 or seen.messages > 100)
      local first, last = seen.memory[1], seen.memory[#seen.memory]
      if not host.sanitizer() and first then
        assert.is_true(last - first < 2048, ("it has grown from %d to %d KiB"):format(first, last))
      end
    end)
  end
end)
