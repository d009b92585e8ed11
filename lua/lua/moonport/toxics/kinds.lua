--- What each type of toxic is made of and does: its attributes, and how it lets chunks go by.
---
--- A stage (see moonport.toxics.pipe) runs one toxic on one direction of one connection and asks its kind:
---   `due(stage, item, at)`  when may the chunk at the head go on? `at`: when it came to be the head; none: at once
---   `pass(stage, item, at)` sends on what of it may go; true if some of it is left, which is asked about again
---   `ends(stage, item, at)` the same as `due` for the end of the input
---   `start(stage, at)`      it begins to apply; may set `stage.deadline`
---   `expire(stage, at)`     the deadline is there
---   `hold(stage, item, at)` of datagrams, in place of due and pass: when may it go? it may overtake others
---   `gone(stage, at)`       it is taken away from a connection that goes on
--- Times are seconds of the world's clock here; attributes are in Toxiproxy's units.

local floor, huge, remove = math.floor, math.huge, table.remove

---@class toxics.Field
---@field unit string what a message calls the right value
---@field integer boolean?
---@field most number?
---@field least number? 0 by default
---@field default number?
---@field optional boolean? may be absent without a default; else an attribute without a default must be given

local MS <const> = { unit = "milliseconds", default = 0 }
local CHANCE <const> = { unit = "a chance from 0 to 1", most = 1 }

local INTERVAL <const> = 0.1 -- seconds of traffic that bandwidth lets go at a time, as Toxiproxy does

---@class toxics.Kind
---@field attributes table<string, toxics.Field>
---@field stream boolean works on streams
---@field datagram boolean works on datagrams
---@field chance? fun(a: table<string, number>): boolean whether it draws lots
---@field check? fun(a: table<string, number>, datagram: boolean?): string? what is wrong with them together
local kinds = {}

kinds.noop = { attributes = {}, stream = true, datagram = true }

-- ---------------------------------------------------------------- latency

local function delay_of(stage)
  local a = stage.attributes
  local delay = a.latency
  if a.jitter > 0 then
    delay = delay + (2 * stage.random() - 1) * a.jitter
  end
  return delay > 0 and delay / 1000 or 0
end


kinds.latency = {
  attributes = { latency = MS, jitter = MS },
  stream = true,
  datagram = true,
  chance = function(a) return a.jitter > 0 end,
  -- Counted from when the bytes came into the pipe, as Toxiproxy does.
  due = function(stage, item)
    item.stamp = item.stamp + delay_of(stage)
    return item.stamp
  end,
  hold = function(stage, _, at) return at + delay_of(stage) end,
}

-- ---------------------------------------------------------------- bandwidth

-- Bytes of the chunk that go at a time. Rate 0 lets nothing by, which Toxiproxy's users take to cut a connection.
local function share(stage, item)
  local size = stage:size(item)
  if stage.pipe.datagram then return size end
  return math.min(size, math.max(1, floor(stage.attributes.rate * 1000 * INTERVAL)))
end

kinds.bandwidth = {
  attributes = { rate = { unit = "kilobytes (of 1000 bytes) per second" } },
  stream = true,
  datagram = true,
  due = function(stage, item, at)
    local rate = stage.attributes.rate
    return rate > 0 and at + share(stage, item) / (rate * 1000) or huge
  end,
  pass = function(stage, item, at) return stage:cut_off(item, share(stage, item), at) end,
}

-- ---------------------------------------------------------------- slicer

-- The size of the next slice; `sizes` has those of the parts not yet sliced, the next last. Halves what is too long,
-- with the middle moved at random, as Toxiproxy does; never to where a half is empty.
local function slice(sizes, a, random)
  local size = remove(sizes)
  while size > 1 and size - a.average_size > a.size_variation do
    local middle = size // 2
    if a.size_variation > 0 then
      middle = middle + floor(random() * 2 * a.size_variation) - a.size_variation + floor(random() * 2)
      middle = math.max(1, math.min(size - 1, middle))
    end
    sizes[#sizes + 1] = size - middle
    size = middle
  end
  return size
end

kinds.slicer = {
  attributes = {
    average_size = { unit = "bytes", integer = true, least = 1 },
    size_variation = { unit = "bytes", integer = true, default = 0 },
    delay = { unit = "microseconds", default = 0 },
  },
  stream = true,
  datagram = false,
  chance = function(a) return a.size_variation > 0 end,
  check = function(a)
    if a.size_variation >= a.average_size then
      return ("size_variation must be smaller than average_size (%d), not %d"):format(a.average_size, a.size_variation)
    end
  end,
  pass = function(stage, item, at)
    item.sizes = item.sizes or { stage:size(item) }
    local size = slice(item.sizes, stage.attributes, stage.random)
    stage.free = at + stage.attributes.delay / 1000000
    if stage:cut_off(item, size, at) then return true end
    item.sizes = nil
  end,
}

-- ---------------------------------------------------------------- how it ends

kinds.slow_close = {
  attributes = { delay = MS },
  stream = true,
  datagram = false,
  ends = function(stage, _, at) return at + stage.attributes.delay / 1000 end,
}

kinds.timeout = {
  attributes = { timeout = MS },
  stream = true,
  datagram = true,
  check = function(a, datagram)
    if datagram and a.timeout > 0 then return "timeout must be 0 for datagrams, which have nothing to close" end
  end,
  start = function(stage, at)
    local timeout = stage.attributes.timeout
    stage.deadline = timeout > 0 and at + timeout / 1000 or nil
  end,
  expire = function(stage, at) stage:close("close", at, "closes the connection") end,
  pass = function(stage, item) stage:drop(item) end,
  -- What it swallowed would be missing from the stream.
  gone = function(stage, at)
    if not stage.pipe.datagram then stage:close("close", at, "is removed and closes the connection") end
  end,
}

-- The first that comes, be it the end of the input, starts the clock, and nothing passes.
local function strike(stage, at)
  if not stage.struck then
    stage.struck = at
    stage.deadline = at + stage.attributes.timeout / 1000
  end
end

kinds.reset_peer = {
  attributes = { timeout = MS },
  stream = true,
  datagram = false,
  start = function(stage)
    if stage.struck then stage.deadline = stage.struck + stage.attributes.timeout / 1000 end
  end,
  expire = function(stage, at) stage:close("reset", at, "resets the connection") end,
  pass = function(stage, item, at)
    strike(stage, at)
    stage:drop(item)
  end,
  ends = function(stage, _, at)
    strike(stage, at)
    return huge
  end,
}

kinds.limit_data = {
  attributes = { bytes = { unit = "bytes", integer = true } },
  stream = true,
  datagram = false,
  pass = function(stage, item, at)
    local sent = stage.sent or 0
    local left = math.max(0, stage.attributes.bytes - sent)
    local size = #item.data
    stage.sent = sent + math.min(size, left)
    if left > 0 and stage:cut_off(item, left, at) or left == 0 then
      stage:drop(item)
    end
    if left <= size then
      stage:close("close", at, ("closes the connection after %d bytes"):format(stage.sent))
    end
  end,
}

-- ---------------------------------------------------------------- corrupt

local function flip(data, at, mask)
  return data:sub(1, at - 1) .. string.char(data:byte(at) ~ mask) .. data:sub(at + 1)
end

-- The gaps between damaged bytes are drawn, not each byte: what is seldom costs little.
local function damage(stage, data, rate)
  local out, from, at = {}, 1, 0
  while true do
    local gap = rate >= 1 and 0 or math.log(1 - stage.random()) / math.log(1 - rate)
    if gap >= #data - at then break end
    at = at + floor(gap) + 1
    out[#out + 1] = data:sub(from, at - 1)
    out[#out + 1] = string.char(data:byte(at) ~ (1 << floor(stage.random() * 8)))
    from = at + 1
  end
  if from == 1 then return data end
  return table.concat(out) .. data:sub(from), (#out // 2)
end

kinds.corrupt = {
  attributes = {
    rate = { unit = "a chance from 0 to 1", most = 1, optional = true },
    at = { unit = "the number of a byte, the first being 1", integer = true, least = 1, optional = true },
  },
  stream = true,
  datagram = true,
  chance = function(a) return a.rate ~= nil end,
  check = function(a)
    if (a.rate == nil) == (a.at == nil) then return "corrupt needs either rate or at" end
  end,
  pass = function(stage, item, at)
    local a, data = stage.attributes, item.data
    local seen = stage.pipe.datagram and 0 or stage.seen or 0
    stage.seen = seen + #data
    if a.at and a.at > seen and a.at <= seen + #data then
      item.data = flip(data, a.at - seen, 0xFF)
      stage:note(("inverts byte %d"):format(a.at), item)
    elseif a.rate and a.rate > 0 then
      local count
      item.data, count = damage(stage, data, a.rate)
      if count then stage:note(("flips a bit in %d of %d bytes"):format(count, #data), item) end
    end
    stage:send(item, at)
  end,
}

-- ---------------------------------------------------------------- datagrams only

kinds.packet_loss = {
  attributes = { loss_rate = CHANCE, correlation = { unit = CHANCE.unit, most = 1, default = 0 } },
  stream = false,
  datagram = true,
  chance = function() return true end,
  pass = function(stage, item, at)
    local a = stage.attributes
    stage.lost = stage.random() < a.loss_rate + (stage.lost and a.correlation or 0)
    if stage.lost then
      stage:note(("drops a datagram of %d bytes"):format(#item.data), item)
      stage:drop(item)
    else
      stage:send(item, at)
    end
  end,
}

kinds.duplicate = {
  attributes = { rate = CHANCE },
  stream = false,
  datagram = true,
  chance = function() return true end,
  pass = function(stage, item, at)
    if stage.random() < stage.attributes.rate then
      stage:note(("doubles a datagram of %d bytes"):format(#item.data), item)
      stage:copy(item, at)
    end
    stage:send(item, at)
  end,
}

kinds.reorder = {
  attributes = { rate = CHANCE, delay = { unit = "milliseconds", default = 100 } },
  stream = false,
  datagram = true,
  chance = function() return true end,
  -- One at a time steps aside, until the next has gone by: a rate of 1 changes the places of each two.
  hold = function(stage, item, at)
    local chosen = stage.random() < stage.attributes.rate
    local aside = stage.held[#stage.held]
    if aside then
      aside.due = at
      return at, true
    elseif not chosen then
      return at
    end
    stage:note(("holds back a datagram of %d bytes"):format(#item.data), item)
    return at + stage.attributes.delay / 1000
  end,
}

return kinds
