--- What toxics do to a direction, said in the simplest way: each takes the whole list of what comes to it, with its
--- times, and gives the whole list of what leaves. Nothing here waits, so nothing can be late. Without chances.
---
--- An entry is `{t=, data=, stamp=}`, or `{t=, eof=true, how=}`.

local M = {}

local function each(list, f)
  local out, free = {}, -math.huge
  for _, e in ipairs(list) do
    free = f(out, e, math.max(e.t, free)) or free
  end
  return out
end

local function put(out, e, t, data)
  out[#out + 1] = { t = t, data = data or e.data, stamp = e.stamp, eof = e.eof, how = e.how }
  return t
end

local function halves(size, most, out)
  if size <= most or size <= 1 then
    out[#out + 1] = size
  else
    halves(size // 2, most, out)
    halves(size - size // 2, most, out)
  end
  return out
end

local function pieces(out, e, sizes, at, step, before)
  local from = 1
  for _, size in ipairs(sizes) do
    if before then at = at + step(size) end
    put(out, e, at, e.data:sub(from, from + size - 1))
    if not before then at = at + step(size) end
    from = from + size
  end
  return at
end

local models = {}

function models.noop(list) return list end

function models.latency(list, a, _, datagram)
  return each(list, function(out, e, at)
    if e.eof then return put(out, e, at) end
    if datagram then return put(out, e, e.t + a.latency / 1000) end
    e.stamp = e.stamp + a.latency / 1000
    return put(out, e, math.max(at, e.stamp))
  end)
end

function models.bandwidth(list, a, _, datagram)
  return each(list, function(out, e, at)
    if e.eof then return put(out, e, at) end
    local sizes, left = {}, #e.data
    while left > 0 do
      sizes[#sizes + 1] = datagram and left or math.min(left, math.floor(a.rate * 100))
      left = left - sizes[#sizes]
    end
    return pieces(out, e, sizes, at, function(size) return size / a.rate / 1000 end, true)
  end)
end

function models.slicer(list, a)
  return each(list, function(out, e, at)
    if e.eof then return put(out, e, at) end
    return pieces(out, e, halves(#e.data, a.average_size, {}), at, function() return a.delay / 1000000 end)
  end)
end

function models.slow_close(list, a)
  return each(list, function(out, e, at) return put(out, e, e.eof and at + a.delay / 1000 or at) end)
end

function models.timeout(list, a, start)
  local last = list[#list]
  local deadline = a.timeout > 0 and start + a.timeout / 1000 or math.huge
  if last and last.eof and last.t < deadline then return { last } end
  return deadline < math.huge and { { t = deadline, eof = true, how = "close" } } or {}
end

function models.reset_peer(list, a)
  return list[1] and { { t = list[1].t + a.timeout / 1000, eof = true, how = "reset" } } or {}
end

function models.limit_data(list, a)
  local out, left = {}, a.bytes
  for _, e in ipairs(list) do
    local data = e.data and e.data:sub(1, left)
    if e.eof or data ~= "" then put(out, e, e.t, data) end
    if e.data and #e.data >= left then
      out[#out + 1] = { t = e.t, eof = true, how = "close" }
      return out
    end
    left = left - #(data or "")
  end
  return out
end

function models.corrupt(list, a, _, datagram)
  local seen = 0
  return each(list, function(out, e)
    local at, data = a.at - seen, e.data
    if data and at >= 1 and at <= #data then
      data = data:sub(1, at - 1) .. string.char(255 - data:byte(at)) .. data:sub(at + 1)
    end
    if not datagram then seen = seen + #(data or "") end
    put(out, e, e.t, data)
  end)
end

-- Of the chances only never and always.
function models.packet_loss(list, a)
  return each(list, function(out, e)
    if e.eof or a.loss_rate == 0 then put(out, e, e.t) end
  end)
end

function models.duplicate(list, a)
  return each(list, function(out, e)
    put(out, e, e.t)
    if not e.eof and a.rate == 1 then put(out, e, e.t) end
  end)
end

function models.reorder(list, a)
  if a.rate == 0 then return list end
  local out, aside, due = {}, nil, nil
  for _, e in ipairs(list) do
    if aside and (due <= e.t or e.eof) then
      put(out, aside, due)
      e.t, aside = math.max(e.t, due), nil
    end
    if e.eof then
      put(out, e, e.t)
    elseif aside then
      put(out, e, e.t)
      put(out, aside, e.t)
      aside = nil
    else
      aside, due = e, e.t + a.delay / 1000
    end
  end
  return out
end

-- What goes by before a toxic begins, and what comes after, and when it begins.
local function split(list, bytes, datagram)
  local before, after, start = {}, {}, 0
  for _, e in ipairs(list) do
    if bytes <= 0 then
      after[#after + 1] = e
    elseif e.eof or datagram or #e.data <= bytes then
      before[#before + 1] = e
      bytes, start = bytes - #(e.data or ""), e.t
      if e.eof then return before, after, nil end
    else
      put(before, e, e.t, e.data:sub(1, bytes))
      put(after, e, e.t, e.data:sub(bytes + 1))
      bytes, start = 0, e.t
    end
  end
  return before, after, bytes <= 0 and start or nil
end

---@param list table[] entries as they are written, in order
---@param specs table[] toxics, flat
---@param datagram boolean
---@return table[] entries as they are delivered, up to the end
function M.through(list, specs, datagram)
  for _, spec in ipairs(specs) do
    local before, after, start = split(list, spec.after_bytes or 0, datagram)
    list = before
    for _, e in ipairs(start and models[spec.type](after, spec, start, datagram) or {}) do
      list[#list + 1] = e
    end
  end
  local out = {}
  for _, e in ipairs(list) do
    out[#out + 1] = e
    if e.eof then break end
  end
  return out
end

return M
