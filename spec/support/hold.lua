-- Holds connections open that do nothing:
-- lua5.4 spec/support/hold.lua BUILD URL NUMBER [LINE]
-- With a LINE, each says it and waits for the answer.  Says "held" when all are, and resets them at the end of its
-- standard input: closing would keep their ports busy for a minute.

package.cpath = arg[1] .. "/?.so"
local sys = require("sys")

local url, number, line = arg[2], tonumber(arg[3]), arg[4]
local fds = {}

for i = 1, number do
  local fd = assert(sys.socket(url))
  local ok, message, errno = sys.connect(fd, url)
  if not ok and errno ~= 115 then error(message) end
  assert(sys.poll(fd, "w", 10), "connect: timeout")
  assert(sys.error(fd) == 0, "connect: it failed")
  fds[i] = fd
  if line then assert(sys.send(fd, line .. "\n")) end
end
for _, fd in ipairs(line and fds or {}) do
  assert(sys.poll(fd, "r", 10), "no answer")
  assert(sys.recv(fd) == line .. "\n")
end
io.write("held\n"):flush()
sys.poll(0, "r", 600)
for _, fd in ipairs(fds) do sys.reset(fd) end
