local cjson = require("cjson")
local host = require("support.host")

-- bench/: from samples to medians and tables, and one real run that is too short to mean anything.

local function python(...)
  local words = { "PYTHONDONTWRITEBYTECODE=1 python3" }
  for _, word in ipairs({ ... }) do words[#words + 1] = "'" .. word .. "'" end
  local p = assert(io.popen("timeout 60 env " .. table.concat(words, " ") .. " 2>&1"))
  local out = p:read("a")
  assert.is_true(p:close(), out)
  return out
end

-- What is inside the n-th cell of the row that begins so.
local function cell(text, row, n)
  local line = text:match("\n| " .. row:gsub("%p", "%%%0") .. " (|[^\n]*)")
  assert.is_truthy(line, "no row " .. row .. " in:\n" .. text)
  for found in line:gmatch("|([^|]*)") do
    n = n - 1
    if n == 0 then return found:match("^ *(.-) *$") end
  end
end

-- The texts of an SVG, which must be one that a strict reader takes.
local function texts(path)
  local out = python("-c", [[import sys, xml.etree.ElementTree as e; root = e.parse(sys.argv[1]).getroot(); ]]
    .. [[print(root.tag); print("\n".join(x.text for x in root.iter("{http://www.w3.org/2000/svg}text")))]], path)
  assert.matches("^{http://www.w3.org/2000/svg}svg\n", out)
  return out
end

local function sample(rps, cpu, more)
  local s = { rps = rps, cpu_us = cpu, server = 90, load = 95, noise = 0, p50 = 1, p99 = 2, peak = 3, errors = 0 }
  for k, v in pairs(more or {}) do s[k] = v end
  return s
end

local function results(workloads)
  return { base = "epoll", order = { "epoll", "moonport", "luv" }, date = "2026-01-02", rounds = 5, seconds = 1,
    versions = { luv = "1.2" }, workloads = workloads,
    machine = { processors = 2, processor = "a <fast> one", memory_gib = 4, system = "Debian", kernel = "6",
      cpus = { 0, 1 } } }
end

local function report(workloads)
  local folder = host.folder()
  host.write(cjson.encode(results(workloads)), folder .. "/in.json")
  python("bench/report.py", folder .. "/in.json", folder)
  return host.read(folder .. "/results.md"), texts(folder .. "/results.svg")
end

describe("the report of make bench", function()
  after_each(host.cleanup)

  local load = { title = "64 B lines", how = "echo", left_out = { node = "there is no node" }, servers = {
    epoll = { sample(100, 4), sample(200, 4), sample(400, 4), sample(100, 5), sample(100, 2) },
    -- of raw in each round: 2, 0.5, 1, (none), 3
    moonport = { sample(200, 8), sample(100, 6), sample(400, 4), cjson.null, sample(300, 2, { errors = 7 }) },
  } }

  local text, svg

  setup(function() text, svg = report({ echo64 = load }) end)

  it("has medians of the ratios within each round, not ratios of medians", function()
    assert.are.equal("1.50", cell(text, "moonport", 1)) -- between 1 and 2; of the medians it would be 2.5
    local details = text:match("<details>.*")
    assert.are.equal("250", cell(details, "moonport", 1))
    assert.are.equal("175–325", (cell(details, "moonport", 2)))
    assert.are.equal("0.88–2.25", cell(details, "moonport", 4))
    assert.are.equal("5.00", cell(details, "moonport", 5))
    assert.are.equal("1.25", cell(details, "moonport", 7)) -- 2, 1.5, 1, 1
  end)

  it("counts errors and rounds, and names who was left out", function()
    local details = text:match("<details>.*")
    assert.are.equal("7", cell(details, "moonport", 14))
    assert.are.equal("4", cell(details, "moonport", 15))
    assert.are.equal("0", cell(details, "raw C, epoll", 14))
    assert.are.equal("5", cell(details, "raw C, epoll", 15))
    assert.matches("`echo64`: node: there is no node", text, 1, true)
    assert.matches("a <fast> one", text, 1, true)
    assert.matches("5 rounds, 1 s for each sample; median noise 0 %", text, 1, true)
  end)

  it("has memory and starts in tables of their own", function()
    local tables, plot = report({
      idle = { title = "idle connections", how = "idle", left_out = {}, servers = {
        epoll = { { count = 100, kib = -0.001, empty = 1, errors = 0 } },
        moonport = { { count = 100, kib = 2.5, empty = 1, errors = 0 },
          { count = 100, kib = 1.5, empty = 3, errors = 1 } },
      } },
      start = { title = "start", how = "start", left_out = {}, servers = {
        moonport = { { ms = 3, errors = 0 } }, ["lua5.4 -e ''"] = { { ms = 1.5, errors = 0 } } } },
    })
    local idle = tables:match("### Idle connections.-###")
    assert.are.same({ "100", "2.00", "1.50–2.50", "2.0", "1" }, { cell(idle, "moonport", 1), cell(idle, "moonport", 2),
      cell(idle, "moonport", 3), cell(idle, "moonport", 4), cell(idle, "moonport", 5) })
    assert.are.equal("0.00", cell(idle, "raw C, epoll", 2))
    assert.are.equal("2.0", cell(tables:match("### Start.*"), "moonport", 3))
    assert.matches("KiB for each idle connection", plot, 1, true)
  end)

  it("has a plot that can be read as XML, with the figures in it", function()
    assert.matches("\n64 B lines\n", svg)
    assert.matches("\nmoonport\n1.50\n", svg)
    assert.matches("requests a second, raw C = 1", svg, 1, true)
    assert.matches("CPU µs for each request", svg, 1, true)
    assert.matches("a <fast> one", svg, 1, true)
  end)
end)

describe("the documentation", function()
  after_each(host.cleanup)

  local function page(text) return "# Speed\n\n" .. text .. "\nthe end\n" end
  local OPEN, CLOSE = "<!-- results: written by make bench-docs -->", "<!-- results: end -->"

  it("gets new tables between its marks, as often as one likes", function()
    local folder = host.folder()
    local path = folder .. "/performance.md"
    host.write(page(OPEN .. "\nold\n" .. CLOSE), path)
    host.write("<svg/>", folder .. "/results.svg")
    for _, figures in ipairs({ "first \\1", "second" }) do
      host.write(figures .. "\n", folder .. "/results.md")
      python("bench/docs.py", folder, folder)
      assert.are.equal(page(OPEN .. "\n\n" .. figures .. "\n\n" .. CLOSE), host.read(path))
    end
    assert.are.equal("<svg/>", host.read(folder .. "/performance.svg"))
  end)

  it("has a place for both tables", function()
    local text = host.read("docs/performance.md")
    for _, name in ipairs({ "results", "axes" }) do
      local from = text:find("<!-- " .. name .. ": written by make bench-docs -->", 1, true)
      assert.is_truthy(from and text:find("<!-- " .. name .. ": end -->", from, true), name)
    end
  end)
end)

describe("a run of the benchmark", function()
  after_each(host.cleanup)

  it("measures what it is told to, without errors", function()
    local folder = host.folder()
    local out = python("bench/run.py", "--build", host.build, "--out", folder, "--rounds", "1", "--seconds", "0.1",
      "--warmup", "0.02", "--noise", "1000", "--servers", "moonport", "--workloads", "unix64,udp64")
    local found = cjson.decode(host.read(folder .. "/results.json"))
    local kinds = {}
    for name, workload in pairs(found.workloads) do
      kinds[#kinds + 1] = name
      assert.are.same({}, workload.left_out)
      for _, server in ipairs({ "epoll", "moonport" }) do
        local one = workload.servers[server][1]
        assert.are.equal(0, one.errors)
        assert.is_true(one.requests > 0 and one.rps > 0 and one.cpu_us > 0 and one.peak > 0, server)
      end
    end
    table.sort(kinds)
    assert.are.same({ "udp64", "unix64" }, kinds)
    assert.are.equal("1.00", cell(out, "raw C, epoll", 1))
    assert.matches("^%d+%.%d%d$", cell(out, "moonport", 1))
  end)

  it("takes a sample again that was disturbed or gave no figures", function()
    assert.are.equal("one of 3\nnone: too short 3\n", python("-c", [[
import sys
sys.path.insert(0, "bench")
import measure, run

def sampler(*outcomes):
    left = list(outcomes)
    def take():
        if isinstance(left[0], Exception):
            raise left.pop(0)
        return left.pop(0)
    return take

short = measure.Failed("too short")
best = run.least_disturbed(sampler(short, {"noise": 50, "rps": 1}, {"noise": 5, "rps": 2}), 10)
print("one of", best["tries"] if best["rps"] == 2 else best)
try:
    run.least_disturbed(sampler(short, short, measure.Failed("too short 3")), 10)
except measure.Failed as why:
    print("none:", why)
]]))
  end)

  it("has no sample without any CPU time of the server", function()
    assert.are.equal("no CPU time of the server was seen in 0.500 s\n", python("-c", [[
import sys
sys.path.insert(0, "bench")
import measure

bench = measure.Bench("", (0, 1), 1, 0)
state = {"wall": 1, "server": 3, "own": 1, "load": 1, "busy": [1, 1]}
try:
    bench.sample(state, state | {"wall": 1.5}, {"requests": 1}, 0)
except measure.Failed as why:
    print(why)
]]))
  end)

  it("goes on without a server that does not answer", function()
    local folder = host.folder()
    local build = folder .. "/build"
    assert(os.execute(("mkdir %s && ln -s %s/bench %s && ln -s /bin/false %s/moonport"):format(build,
      host.build:find("^/") and host.build or os.getenv("PWD") .. "/" .. host.build, build, build)))
    local out = python("bench/run.py", "--build", build, "--out", folder, "--rounds", "2", "--seconds", "0.02",
      "--warmup", "0", "--noise", "1000", "--servers", "moonport", "--workloads", "echo1")
    assert.matches("`echo1`: moonport: it does not answer", out, 1, true)
    assert.are.equal("1.00", cell(out, "raw C, epoll", 1))
    assert.is_nil(out:find("\n| moonport", 1, true))
  end)

  it("leaves no server behind when it is ended", function()
    local folder = host.folder()
    local err = assert(host.sys.open(folder .. "/err", "w"))
    local pid = assert(host.sys.spawn({ "python3", "bench/run.py", "--build", host.build, "--out", folder,
      "--servers", "moonport", "--workloads", "echo1", "--seconds", "60" },
      { stderr = err, env = { "PYTHONDONTWRITEBYTECODE=1" } }))
    host.sys.close(err)
    local server = host.eventually("a server", function()
      for _, other in ipairs(host.sys.list("/proc")) do
        local parent = (host.read("/proc/" .. other .. "/stat") or ""):match("%) %a (%d+)")
        local command = parent == tostring(pid) and host.read("/proc/" .. other .. "/cmdline")
        if command and command:find("/bench/limit\0echo\0", 1, true) then return tonumber(other) end
      end
    end)
    host.sys.kill(pid, "TERM")
    assert.is_truthy(host.sys.wait(pid, host.LIMIT))
    assert.is_nil(host.state(server))
  end)

  it("leaves none behind when it is ended in the midst of a start", function()
    local out = python("-c", [[
import os, signal, subprocess, sys
sys.path.insert(0, "bench")
import measure, run

class Ended(subprocess.Popen):
    def _execute_child(self, *arguments):
        super()._execute_child(*arguments)
        print(self.pid, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

measure.subprocess.Popen = Ended
run.end_all_with_this()
try:
    with measure.Server("{build}/bench/limit echo {url}", "tcp", 0, sys.argv[1]):
        print("goes on")
except SystemExit as e:
    print("ended", e.code)
]], host.build)
    local pid = out:match("^(%d+)\nended 143\n$")
    assert.is_truthy(pid, out)
    assert.is_nil(host.state(tonumber(pid)))
  end)

  it("says which axis grows", function()
    local folder = host.folder()
    local out = python("bench/axes.py", "--build", host.build, "--out", folder, "--rounds", "1", "--seconds", "0.1",
      "--warmup", "0", "--noise", "1000", "--axes", "generations")
    assert.are.equal("1.00", cell(out, "0", 4))
    assert.matches("^%d+%.%d%d$", cell(out, "100", 4))
    assert.are.equal("0", cell(out, "100", 5))
    assert.matches("\nreloads before, 64 connections\n", texts(folder .. "/axes.svg"))
  end)
end)

describe("the load generator", function()
  after_each(host.cleanup)

  local function load(script, arguments)
    local path = host.write(script)
    local p = host.start(path)
    local pipe = assert(io.popen(("%s/bench/load %s -w 0 -d 0.05 </dev/null 2>&1"):format(host.build,
      arguments:gsub("URL", p:url()))))
    local out = pipe:read("a")
    local _, _, status = pipe:close()
    p:stop()
    return status, out
  end

  it("sees one byte that differs", function()
    local status, out = load([[
      function handle(self)
        local n = 0
        for line in self.rfile:lines("L") do
          n = n + 1
          self.wfile:write(n == 3 and line:gsub("z", "Z") or line)
        end
      end]], "echo URL -s 100")
    assert.are.equal(1, status, out)
    assert.matches("the reply differs from the request", out, 1, true)
  end)

  it("sees an idle connection that does not answer any more", function()
    local status, out = load([[
      function handle(self)
        self.wfile:write(self.rfile:read("L"))
        self.wfile:flush()
        self.rfile:read("L")
      end]], "echo URL -c 0 -i 2")
    assert.are.equal(1, status, out)
    assert.matches('"errors": [1-9]', out)
  end)

  it("sends what does not fit at once, and batches", function()
    local script = [[function handle(self) for l in self.rfile:lines("L") do self.wfile:write(l) end end]]
    for _, shape in ipairs({ "-s 1", "-s 60000 -c 3", "-s 64 -p 1000 -c 3 -i 5" }) do
      local status, out = load(script, "echo URL " .. shape)
      assert.are.equal(0, status, out)
      assert.matches('"requests": [1-9]', out)
    end
  end)
end)
