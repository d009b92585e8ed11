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
    args = { "--workers=2", "--mixin=threading", "-o", "max_threads=110" }, places = 110 },
  -- One request at a time: a stream would be the only one.
  { name = "sync", args = { "--mixin=sync" }, streams = 0 },
}

describe("replacing the code under load", function()
  after_each(host.cleanup)

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
