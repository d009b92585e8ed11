--- Reads frames from a source of bytes that may be cut anywhere.

local M = {}

local RUN = 256 -- pieces that are joined into one

local concat, find, max, sub = table.concat, string.find, math.max, string.sub

---@class frame.Reader
---@field private source fun(need: integer): string?, string?, integer?
---@field private buf string unread from pos on
---@field private pos integer
local Reader = {}
local reader_mt = { __name = "frame.Reader", __index = Reader }

---@param source fun(need: integer): string?, string?, integer? gives what bytes there are, of which `need` or more
---are wanted; waits for some, or gives nil and why there are none
---@return frame.Reader
function M.new(source)
  return setmetatable({ source = source, buf = "", pos = 1 }, reader_mt)
end

---What has come and was not read.
---@return string
function Reader:rest()
  return sub(self.buf, self.pos)
end

---The same, which is not read by this reader then.
---@return string
function Reader:give_up()
  local rest = self:rest()
  self.buf, self.pos = "", 1
  return rest
end

---Adds pieces to the buffer until there are `need` bytes of it, and `seek` ends at the need-th of them or later.
---Each byte is copied and searched a few times at most, however small the pieces are.
---@param self frame.Reader
---@param need integer
---@param seek string?
---@param most integer so many are enough without seek
---@return integer? from where seek was found, else 1
---@return string? why
---@return integer? errno
local function gather(self, need, seek, most)
  local buf = self.buf
  local pieces, n, joined, have = { buf }, 1, 1, #buf
  local overlap = seek and #seek - 1 or 0
  local start = need - overlap -- where seek may begin at the earliest
  local tail = overlap > 0 and sub(buf, -overlap) or ""
  local from
  repeat
    local data, why, errno = self.source(max(need - have, 1))
    if not data then
      self.buf = concat(pieces)
      return nil, why, errno
    end
    n = n + 1
    pieces[n] = data
    if n - joined == RUN then
      joined = joined + 1
      pieces[joined] = concat(pieces, "", joined, n)
      while n > joined do
        pieces[n], n = nil, n - 1
      end
    end
    if seek then
      local before = have - #tail
      tail = overlap > 0 and tail .. data or data
      local at = find(tail, seek, max(start - before, 1), true)
      from = at and before + at
      tail = overlap > 0 and sub(tail, -overlap) or ""
    end
    have = have + #data
  until have >= need and (not seek or from or have >= most)
  self.buf = concat(pieces)
  return from or 1
end

---@param self frame.Reader
---@param framing frame.Framing
---@param need integer?
---@param seek string? or why
---@return boolean? there something was added, after which it is worth asking again
---@return string|integer? why or where to go on
---@return integer? errno
local function fetch(self, framing, need, seek)
  if not need then return nil, seek end
  local buf = self.pos > 1 and sub(self.buf, self.pos) or self.buf
  self.buf, self.pos = buf, 1
  if buf == "" then -- as a rule: one frame, one piece
    local data, why, errno = self.source(max(need, 1))
    if not data then return nil, why, errno end
    self.buf = data
    return true, 1
  end
  local from, why, errno = gather(self, need, seek, framing.most or framing.max)
  if not from then return nil, why, errno end
  return true, from
end

local read_values

---@param self frame.Reader
---@param framing frame.Framing
local function taken(self, framing, frame, pos, ...)
  if frame then
    self.pos = pos
    return frame, ...
  end
  local there, why, errno = fetch(self, framing, pos, (...))
  if not there then return nil, why, errno end
  return read_values(self, framing, why)
end

---@param self frame.Reader
---@param framing frame.Framing
---@param from integer?
function read_values(self, framing, from)
  return taken(self, framing, framing.next(self.buf, self.pos, from))
end

---The next frame, without its values.
---@param framing frame.Framing
---@return string? frame
---@return any why
---@return any errno
function Reader:frame(framing)
  local next_of = framing.bare or framing.next
  local frame, pos, seek = next_of(self.buf, self.pos)
  while not frame do
    local there, why, errno = fetch(self, framing, pos, seek)
    if not there then return nil, why, errno end
    frame, pos, seek = next_of(self.buf, self.pos, why)
  end
  self.pos = pos
  return frame
end

---The next frame, and the values that go with it. After nil what has come is kept: see rest().
---@param framing frame.Framing
---@return string? frame
---@return any why or the first of the values: "closed", "timeout", "frame too long: ..."
---@return any ... errno or further values
function Reader:read(framing)
  if framing.values then return read_values(self, framing) end
  return self:frame(framing)
end

return M
