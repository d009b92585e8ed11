local conversations = require("support.conversations")
local host = require("support.host")

-- What moonport.testing shows a handler is what the real program shows it: random conversations, run under both.
-- More of them: MOONPORT_CASES=20000 MOONPORT_SEED=1 busted spec/testing_fidelity_spec.lua

local CASES = tonumber(os.getenv("MOONPORT_CASES")) or 600
local SEED = tonumber(os.getenv("MOONPORT_SEED")) or 1

local SERVERS = {
  { {} },
  { { max_line = 50 } },
  { { rbufsize = 7, wbufsize = 0 } },
  { { wbufsize = 30, max_line = 100 } },
  { {}, "unix" },
}

local function lines(text)
  local out = {}
  for line in (text .. "\n"):gmatch("(.-)\n") do out[#out + 1] = line end
  return out
end

-- The piece of the program that has given a line of the results.
local function piece(case, line)
  local k = line and line:match("^%d+")
  local at = k and case.code:find("R(" .. k .. ", ", 1, true)
  return at and case.code:sub(at, at + 120):match("^[^\n]*\n?[^\n]*") or ""
end

-- A TCP connection that both have shut down lasts until the kernel has seen the last acknowledgement, which rarely
-- comes a moment later than usual: then one more shutdown() succeeds.
local function is_late_end(case, mine, theirs)
  local number = mine and mine:match("^(%d+: true )true$")
  return number and theirs == number .. 'nil "Transport endpoint is not connected" integer 107'
    and piece(case, mine):find("request:shutdown", 1, true)
end

local function first_difference(case, a, b)
  local mine, theirs = lines(a), lines(b)
  for i = 1, math.max(#mine, #theirs) do
    if mine[i] ~= theirs[i] and not is_late_end(case, mine[i], theirs[i]) then
      return ("%s\nreal:    %s\ntesting: %s"):format(piece(case, mine[i] or theirs[i]), mine[i], theirs[i])
    end
  end
end

describe("moonport.testing", function()
  after_each(host.cleanup)

  for i, server in ipairs(SERVERS) do
    local attributes, kind = server[1], server[2]
    it("shows a handler what the real program does, case " .. i, function()
      local url = kind == "unix" and "unix://" .. host.folder() .. "/socket" or "tcp://127.0.0.1:0"
      local program, t = conversations.start(attributes, url)
      local wrong, clients = {}, {}
      for n = 1, CASES // #SERVERS do
        local seed = SEED * 1000000 + n * 10 + i
        local case = conversations.random(seed, attributes.rbufsize)
        local seen, results, address = conversations.real(program, case, tostring(n))
        local seen2, results2, address2 = conversations.virtual(t, case, tostring(n))
        clients[n] = { seed = seed, real = address, virtual = address2 }
        local difference = first_difference(case, results, results2)
          or seen ~= seen2 and ("client saw: %q\ntesting:    %q"):format(seen, seen2)
        if difference then
          wrong[#wrong + 1] = ("seed %d (%s):\n%s"):format(seed, case.ending, difference)
        end
      end
      program:stop()
      t:finish()
      local real_log, virtual_log = conversations.by_client(program:events()), conversations.by_client(t.log)
      for _, c in ipairs(kind ~= "unix" and clients or {}) do
        if real_log[c.real] ~= virtual_log[c.virtual] then
          wrong[#wrong + 1] = ("seed %d: log\nreal:    %s\ntesting: %s"):format(c.seed, real_log[c.real],
            virtual_log[c.virtual])
        end
      end
      assert(#wrong == 0, ("%d differences:\n%s"):format(#wrong, table.concat(wrong, "\n", 1, math.min(#wrong, 10))))
    end)
  end
end)
