-- A card processor that speaks a binary protocol after ISO 8583: each message has two bytes of length before it, then
-- four digits of type, six of a trace number that the answer repeats, and what the type has.
--
--   moonport mock scripts/mocks/frames.lua
--   python3 -c 'import socket, struct
--   s = socket.create_connection(("127.0.0.1", PORT))
--   body = b"0200" + b"000001" + struct.pack(">I", 1999) + b"4242424242424242"
--   s.sendall(struct.pack(">H", len(body)) + body); print(s.recv(100))'      b"\x00\x0c021000000100"
--
-- The stubs get the message without its length, and their answers have to bring theirs. A fault is one line:
--   cards:on("^0200", { mock.silence, mock.truncate(message "021000000100", 5), mock.reset }, { at = 1 })
-- Its state: `approved`, a list of { trace=, cents= }, and `limit`, the most cents that are approved.
local mock = require("moonport.mock")

-- ">s2" is a string.pack format: a string with two bytes of length before it, the higher first. Others: "<s4", ">I1s2".
local FRAME = ">s2"

local cards = mock.server { "tcp://127.0.0.1:0", name = "cards", frame = FRAME }

cards.state.approved = {}
cards.state.limit = 100000

local function message(...) return string.pack(FRAME, table.concat { ... }) end

-- 0800: is there anybody? A hex pattern: ".." is any byte, "*" any number of them.
cards:on(mock.hex "30 38 30 30 .. .. .. .. .. ..", function(_, frame)
  return message("0810", frame:sub(5, 10), "00")
end)

-- 0200: a purchase, cents as four bytes and the card's number.
cards:on("^0200(%d%d%d%d%d%d)(....)(%d+)$", function(_, trace, cents, number)
  cents = string.unpack(">I4", cents)
  if #number ~= 16 then return message("0210", trace, "14") end -- no such card
  if cents > cards.state.limit then return message("0210", trace, "51") end -- not enough funds
  table.insert(cards.state.approved, { trace = trace, cents = cents })
  return message("0210", trace, "00")
end)

-- 0400: takes a purchase back.
cards:on("^0400(%d%d%d%d%d%d)$", function(_, trace)
  for i, one in ipairs(cards.state.approved) do
    if one.trace == trace then
      table.remove(cards.state.approved, i)
      return message("0410", trace, "00")
    end
  end
  return message("0410", trace, "25") -- there is none
end)

cards:otherwise(function(_, frame) return message("9999", frame:sub(5, 10), "30") end) -- format error

return cards -- for variants: see redis_flaky.lua
