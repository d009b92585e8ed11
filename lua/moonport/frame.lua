--- Framings as values: how a stream of bytes falls into whole frames, however it was cut.
---
--- `framing.next(buf, pos, from)` looks for one frame in buf from pos on:
---   frame, newpos, ...    the frame and the position behind it; values that go with it follow
---   nil, need [, seek]    there is none before `need` bytes are there from pos on, nor before the string `seek` is
---                         among them and ends at the need-th or later
---   nil, nil, why         there never will be one
--- `from` is nil when it is asked first; asked again after such a nil, it is where `seek` was found, else pos.
--- Bytes stay what they are: nothing is decoded, no case folded.

local hex = require("moonport.frame.hex")
local pack = require("moonport.frame.pack")
local reader = require("moonport.frame.reader")
local text = require("moonport.frame.text")

local M = { hex = hex.new, reader = reader.new }

local MAX = 1024 * 1024 -- bytes in a frame, unless told
local HUGE = 1 << 53 -- of sizes that are no mistake

local find, sub = string.find, string.sub
local math_type, type = math.type, type

---@class frame.Framing
---@field next fun(buf: string, pos: integer, from?: integer): string?, integer?, ...
---@field name string `line "\r\n"`
---@field max integer most bytes of a frame
---@field most integer? bytes without `seek` among them after which next has something to say; max unless given
---@field values boolean? next gives values behind newpos
---@field bare fun(buf: string, pos: integer, from?: integer)? the same without them, which is cheaper

---@class frame.Options
---@field max? integer bytes, 1 MiB unless given

local framing_mt = { __name = "frame.Framing", __tostring = function(self) return self.name end }

---@param name string
---@param what string
---@param value any
---@param least integer
---@return integer
local function size(name, what, value, least)
  local n = math.tointeger(value)
  if not n or type(value) ~= "number" or n < least or n > HUGE then
    error(("%s: %s must be a number of bytes, %d or more, not %s"):format(name, what, least, text.show(value)), 0)
  end
  return n
end

local OPTIONS = { max = true }

---@param name string
---@param options frame.Options?
---@param known? table<string, boolean> only max unless given
---@return frame.Framing without its `next`
local function new(name, options, known)
  if options ~= nil and type(options) ~= "table" then
    error(("%s: its options are a table such as { max = 4096 }, not %s"):format(name, text.show(options)), 0)
  end
  for key in pairs(options or {}) do
    if not (known or OPTIONS)[key] then
      local there = known and "there are max and name" or "there is max"
      error(("%s: there is no option %s; %s"):format(name, text.show(key), there), 0)
    end
  end
  local max = options and options.max
  return setmetatable({ name = name, max = max == nil and MAX or size(name, "max", max, 1) }, framing_mt)
end

---@param framing frame.Framing
---@return string
local function too_long(framing)
  return ("frame too long: more than %d bytes (%s)"):format(framing.max, framing.name)
end

---@param kind string
---@param d string
---@param keep boolean whether the delimiter belongs to the frame
---@param options frame.Options?
---@return frame.Framing
local function delimited(kind, d, keep, options)
  if type(d) ~= "string" or d == "" then
    error(("%s: the delimiter must be a string that is not empty, not %s"):format(kind, text.show(d)), 0)
  end
  local framing = new(kind .. " " .. text.quote(d), options)
  local n = #d
  local kept = keep and n or 0
  local longest = framing.max - kept -- of what comes before the delimiter
  local why = too_long(framing)
  framing.most = longest + n
  function framing.next(buf, pos, from)
    local at = find(buf, d, from or pos, true)
    if at then
      if at - pos > longest then return nil, nil, why end
      return sub(buf, pos, at - 1 + kept), at + n
    end
    local have = #buf - pos + 1
    if have >= framing.most then return nil, nil, why end
    return nil, (have < n and n or have + 1), d
  end
  return framing
end

---What stands before each separator; the separator itself is left out.
---@param separator? string "\n" unless given
---@param options? frame.Options
---@return frame.Framing
function M.line(separator, options)
  return delimited("line", separator == nil and "\n" or separator, false, options)
end

---What stands before each `d`, which is left out.
---@param d string
---@param options? frame.Options
---@return frame.Framing
function M.upto(d, options)
  return delimited("upto", d, false, options)
end

---Each frame ends with `d`, which is kept.
---@param d string
---@param options? frame.Options
---@return frame.Framing
function M.delimiter(d, options)
  return delimited("delimiter", d, true, options)
end

---Frames of n bytes.
---@param n integer
---@param options? frame.Options
---@return frame.Framing
function M.fixed(n, options)
  n = size("fixed", "the size", n, 1)
  local framing = new("fixed " .. n, options)
  if n > framing.max then
    error(("%s: its frames are longer than max, %d bytes"):format(framing.name, framing.max), 0)
  end
  function framing.next(buf, pos)
    local after = pos + n
    if #buf + 1 < after then return nil, n end
    return sub(buf, pos, after - 1), after
  end
  return framing
end

---A string.pack format. If it holds exactly one value and that is a string, it is the frame; else the frame is the
---raw bytes, and all values follow.
---@param format string ">s2"
---@param options? frame.Options
---@return frame.Framing
function M.pack(format, options)
  if type(format) ~= "string" then
    error(("pack: a string.pack format is a string such as \">s2\", not %s"):format(text.show(format)), 0)
  end
  local framing = new("pack " .. text.quote(format), options)
  return pack.fill(framing, format, too_long(framing))
end

---@class frame.Length: frame.Options
---@field format? string of the number: a string.pack format of one integer, ">I4" unless given
---@field offset? integer bytes before the number, 0 unless given
---@field header? integer bytes before the body, the number among them; unless given it ends with the number
---@field adjust? integer added to the number gives the length of the body, 0 unless given
---@field strip? integer|boolean bytes to leave out at the front of the frame; true: the header

---@param name string
---@param spec frame.Length
---@param width integer of the number
---@return integer header
---@return integer offset
---@return integer adjust
---@return integer strip
local function measures(name, spec, width)
  local offset = spec.offset == nil and 0 or size(name, "offset", spec.offset, 0)
  local header = spec.header == nil and offset + width or size(name, "header", spec.header, 1)
  if header < offset + width then
    error(("%s: a header of %d bytes does not hold the %d bytes of the number at offset %d")
      :format(name, header, width, offset), 0)
  end
  local adjust = spec.adjust == nil and 0 or size(name, "adjust", spec.adjust, -HUGE)
  local strip = spec.strip
  strip = strip == true and header or not strip and 0 or size(name, "strip", strip, 0)
  if strip > header then
    error(("%s: strip is %d, more than the %d bytes of the header"):format(name, strip, header), 0)
  end
  return header, offset, adjust, strip
end

local LENGTH = { format = true, offset = true, header = true, adjust = true, strip = true, max = true }

---A header that says how long the body behind it is.
---@param spec frame.Length
---@return frame.Framing
function M.length(spec)
  if type(spec) ~= "table" then
    error(("length: a table such as { format = \">I4\" } is needed, not %s"):format(text.show(spec)), 0)
  end
  for key in pairs(spec) do
    if not LENGTH[key] then
      error(("length: no such field as %s; there are format, offset, header, adjust, strip and max")
        :format(text.show(key)), 0)
    end
  end
  local format = spec.format == nil and ">I4" or spec.format
  local framing = new("length " .. text.show(format), { max = spec.max })
  local width, number = pack.integer(framing.name, format)
  local header, offset, adjust, strip = measures(framing.name, spec, width)
  if header > framing.max then error(("%s: its header is longer than max"):format(framing.name), 0) end
  local most, least = framing.max - header - adjust, -adjust -- of the number
  local why = too_long(framing)
  function framing.next(buf, pos)
    if #buf - pos + 1 < header then return nil, header end
    local value = number(buf, pos + offset) -- nil: more than any integer
    if not value or value > most then return nil, nil, why end
    if value < least then
      return nil, nil, ("negative length: the number is %d, adjusted by %d (%s)"):format(value, adjust, framing.name)
    end
    local after = pos + header + value + adjust
    if after > #buf + 1 then return nil, after - pos end
    return sub(buf, pos + strip, after - 1), after
  end
  return framing
end

---All bytes of a datagram are one frame, also if there are none.
---@param options? frame.Options
---@return frame.Framing
function M.datagram(options)
  local framing = new("datagram", options)
  local why = too_long(framing)
  function framing.next(buf, pos, from)
    local n = #buf - pos + 1
    if n > framing.max then return nil, nil, why end
    if n == 0 and not from then return nil, 0 end -- the next piece is one, even if it is empty
    return sub(buf, pos), #buf + 1
  end
  return framing
end

---Whatever has come, but no more than max at once.
---@param options? frame.Options
---@return frame.Framing
function M.any(options)
  local framing = new("any", options)
  function framing.next(buf, pos)
    if pos > #buf then return nil, 1 end
    local frame = sub(buf, pos, pos + framing.max - 1)
    return frame, pos + #frame
  end
  return framing
end

---@class frame.CustomOptions: frame.Options
---@field name? string for messages

---What is wrong with a frame that a function of the user's gave.
---@param framing frame.Framing
---@return string? why too long; raises for what is the function's fault
local function misjudged(framing, have, pos, frame, newpos)
  if type(frame) ~= "string" then
    error(("%s: a frame is a string, not %s"):format(framing.name, text.show(frame)), 0)
  elseif math_type(newpos) ~= "integer" or newpos <= pos or newpos > pos + have then
    error(("%s: with a frame goes the position behind it, from %d to %d, not %s")
      :format(framing.name, pos + 1, pos + have, text.show(newpos)), 0)
  end
  return too_long(framing)
end

---What it means that it gave none.
local function unframed(framing, have, newpos, why)
  if why ~= nil and newpos == nil then return nil, nil, tostring(why) end
  local need = math.tointeger(newpos)
  if newpos ~= nil and not need then
    error(("%s: how many bytes are needed is an integer, not %s"):format(framing.name, text.show(newpos)), 0)
  end
  if not need or need <= have then need = have + 1 end
  if need > framing.max then return nil, nil, too_long(framing) end
  return nil, need
end

---What a function of the user's gave, if it is fit to go on with.
---@param framing frame.Framing
---@param have integer
---@param pos integer
local function judged(framing, have, pos, frame, newpos, ...)
  if not frame then return unframed(framing, have, newpos, ...) end
  if type(frame) ~= "string" or math_type(newpos) ~= "integer" or newpos <= pos or newpos > pos + have
    or newpos - pos > framing.max then
    return nil, nil, misjudged(framing, have, pos, frame, newpos)
  end
  return frame, newpos, ...
end

local OF_CUSTOM = { max = true, name = true }

---Whatever the function says: `f(buf, pos)` gives frame, newpos, ...; or nil and, if it knows, how many bytes there
---must be from pos on, without which it is asked again whenever bytes come; or nil, nil, why. There is always a byte
---at pos.
---@param f fun(buf: string, pos: integer, from?: integer): string?, integer?, ...
---@param options? frame.CustomOptions
---@return frame.Framing
function M.custom(f, options)
  if type(f) ~= "function" then error(("custom: a function is needed, not %s"):format(text.show(f)), 0) end
  local framing = new("custom", options, OF_CUSTOM)
  if options and options.name ~= nil then framing.name = tostring(options.name) end
  framing.values = true
  local max = framing.max
  function framing.bare(buf, pos, from)
    local have = #buf - pos + 1
    if have <= 0 then return nil, 1 end
    local frame, newpos, why = f(buf, pos, from)
    if type(frame) == "string" and math_type(newpos) == "integer" and newpos > pos and newpos <= pos + have
      and newpos - pos <= max then
      return frame, newpos
    end
    return judged(framing, have, pos, frame, newpos, why)
  end
  function framing.next(buf, pos, from)
    if pos > #buf then return nil, 1 end
    return judged(framing, #buf - pos + 1, pos, f(buf, pos, from))
  end
  return framing
end

local KINDS = { "line", "upto", "delimiter", "fixed", "pack", "length", "datagram", "any", "custom" }
local OF_OPTIONS = { length = true, datagram = true, any = true }

---@param value table { line = "\r\n", max = 100 }
---@return frame.Framing
local function from_table(value)
  local kind
  for _, name in ipairs(KINDS) do
    if value[name] ~= nil then
      if kind then error(("a framing is one of %s and %s, not both"):format(kind, name), 0) end
      kind = name
    end
  end
  for key in pairs(value) do
    if not kind or (key ~= kind and key ~= "max") then
      error(("no such framing as %s; there are %s"):format(text.show(key), table.concat(KINDS, ", ")), 0)
    end
  end
  if not kind then error("an empty table is no framing; one is { line = \"\\r\\n\" }", 0) end
  local argument = value[kind]
  if not OF_OPTIONS[kind] then
    if kind == "line" and argument == true then argument = nil end
    return M[kind](argument, { max = value.max })
  end
  local options = { max = value.max }
  if type(argument) == "table" then
    for k, v in pairs(argument) do options[k] = v end
  elseif argument ~= true then
    error(("%s: a table or true is needed, not %s"):format(kind, text.show(argument)), 0)
  end
  return M[kind](options)
end

---The framing that a value stands for: a framing, a string.pack format, a function, or, as JSON has it, a table such
---as { line = "\r\n" }, { fixed = 4, max = 4 }, { length = { format = ">I2" } } or { any = true }.
---@param value any
---@return frame.Framing
function M.of(value)
  local kind = type(value)
  if kind == "string" then return M.pack(value) end
  if kind == "function" then return M.custom(value) end
  if kind ~= "table" then
    error(("a framing is made by moonport.frame, or is a string.pack format or a function, not %s")
      :format(text.show(value)), 0)
  end
  if getmetatable(value) == framing_mt then return value end
  if type(value.next) == "function" then return M.custom(value.next, { max = value.max, name = value.name }) end
  return from_table(value)
end

return M
