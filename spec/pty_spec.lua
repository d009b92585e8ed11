local host = require("support.host")
local sys = host.sys

-- Runs the program on a terminal (bsdutils' script makes one) until it has said `last`,
-- then types Ctrl-C; what the terminal showed, and the exit code.
local function on_terminal(arguments, last, during)
  local in_r, in_w = sys.pipe()
  local out = host.folder() .. "/out"
  local out_w = sys.open(out, "w")
  local pid = assert(sys.spawn({ "script", "-qec", "exec " .. host.program .. " " .. arguments, "/dev/null" },
    { stdin = in_r, stdout = out_w, stderr = out_w }))
  sys.close(in_r)
  sys.close(out_w)
  host.eventually("'" .. last .. "' on the terminal", function()
    return (host.read(out) or ""):find(last, 1, true)
  end)
  if during then during((host.read(out):gsub("\r", ""))) end
  sys.write(in_w, "\3")
  local code = sys.wait(pid, host.LIMIT)
  if not code then
    sys.kill(pid, "KILL")
    sys.wait(pid, host.LIMIT)
  end
  sys.close(in_w)
  return (host.read(out):gsub("\r", "")), code
end

describe("on a terminal", function()
  after_each(host.cleanup)

  it("serve says where it listens and what to type next, and Ctrl-C ends it", function()
    local text, code = on_terminal("serve scripts/upper.lua --listen=tcp://127.0.0.1:0", "Ctrl-C", function(shown)
      local ip, port = shown:match("talk to it:  nc (%S+) (%d+)\n")
      assert.are.equal("127.0.0.1", ip, shown)
      local c <close> = host.connect("tcp://127.0.0.1:" .. port)
      assert.are.equal("TYPED", c:ask("typed"))
    end)
    assert.are.equal(0, code)
    assert.matches("moonport %d+%.%d+%.%d+\n", text)
    assert.matches("  upper listens on tcp://127%.0%.0%.1:%d+ %(AsyncTCPServer%)\n", text)
    assert.matches("  Ctrl%-C stops it\n", text)
    assert.matches("info stopped", text)
  end)

  it("names the command for each kind of server", function()
    local folder = host.folder()
    for url, command in pairs {
      ["udp://127.0.0.1:0"] = "nc %-u 127.0.0.1 %d+\n",
      ["tcp://[::1]:0"] = "nc ::1 %d+\n",
      ["tcp://0.0.0.0:0"] = "nc 127.0.0.1 %d+\n",
      ["unix://" .. folder .. "/s"] = "nc %-U " .. folder:gsub("%W", "%%%0") .. "/s\n",
      ["unixgram://" .. folder .. "/d"] = "nc %-uU " .. folder:gsub("%W", "%%%0") .. "/d\n",
      ["unix://@spec" .. folder] = "socat %- ABSTRACT%-CONNECT:spec" .. folder:gsub("%W", "%%%0") .. "\n",
    } do
      local text = on_terminal("serve scripts/upper.lua --listen=" .. url, "Ctrl-C")
      assert.matches("talk to it:  " .. command, text)
    end
  end)

  it("says nothing of the kind when a ready file is asked for", function()
    local folder = host.folder()
    local text, code = on_terminal("serve scripts/upper.lua --listen=tcp://127.0.0.1:0 --ready-file=" .. folder
      .. "/ready", "listening")
    assert.are.equal(0, code)
    assert.is_nil(text:find("talk to it", 1, true))
  end)

  it("shows a traceback line by line", function()
    local script = host.write("local function deeper() error('oh no') end\nfunction handle() deeper() end")
    local text = on_terminal("serve " .. script .. " --listen=tcp://127.0.0.1:0", "Ctrl-C", function(shown)
      local c <close> = host.connect("tcp://127.0.0.1:" .. shown:match("nc 127.0.0.1 (%d+)"))
      c:all()
    end)
    assert.matches("error handler error [^\n]*oh no[^\n]*\n    stack traceback:\n    \t[^\n]+\n    \t[^\n]*deeper",
      text)
  end)

  it("try ends by Ctrl-C", function()
    local script = host.write("function handle(self) self.wfile:write('say: ') self.rfile:read() end")
    local text, code = on_terminal("try " .. script, "say: ")
    assert.is_truthy(code == 0 or code == -2 or code == 130, tostring(code) .. text)
  end)
end)
