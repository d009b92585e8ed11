-- Sends signals to a process, in turn, until it is told to stop or the process is gone:
-- lua5.4 spec/support/storm.lua BUILD PID SIGNALS_PER_SECOND SIGNAL...
-- It says "begun", stops at the end of its standard input, and says how many it has sent.

package.cpath = arg[1] .. "/?.so"
local sys = require("sys")

local pid, period = tonumber(arg[2]), 1 / tonumber(arg[3])
local began, sent = sys.now(), 0
io.write("begun\n"):flush()
while not sys.poll(0, "r", math.max(began + sent * period - sys.now(), 0)) do
  sent = sent + 1
  if not sys.kill(pid, arg[4 + sent % (#arg - 3)]) then break end
end
print(sent)
