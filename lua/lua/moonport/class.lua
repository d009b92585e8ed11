--- Classes as Python has them: several bases, its order of method resolution (C3), construction by a call.
---
---     local Dog = class.new("Dog", Animal)
---     function Dog:__init(name)        -- Python's __init__
---       Animal.__init(self, name)      -- Python's super().__init__, by the base's name
---       self.tail = true
---     end
---     local rex = Dog("Rex")
---
--- A class is a table, and what stands in it all its instances have. Metamethods (`__close`, `__tostring`, `__gc`
--- ...) stand there as well and are inherited; Lua wants them in one place, so they are gathered when the first
--- instance of a class is made. `__index` is Python's `__getattr__`: asked for what neither object nor class has.

local M = {}

-- Keys of metatables, which no script can meet by chance: of a class's own (its name, its order of resolution, the
-- metatable of its instances), and of that last one (its class).
local NAME, ORDER, INSTANCES, CLASS = {}, {}, {}, {}

---@class moonport.Class
---@field __init? fun(self: table, ...) the constructor
---@field [string] any
---@overload fun(...): table

---@param value any
---@return boolean
function M.is(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(meta) == "table" and rawget(meta, ORDER) ~= nil
end

---@param class moonport.Class
---@return string
function M.name(class) return getmetatable(class)[NAME] end

---The class and all its bases, in the order in which they are asked; to be left as it is.
---@param class moonport.Class
---@return moonport.Class[]
function M.mro(class) return getmetatable(class)[ORDER] end

---@param object any
---@return moonport.Class? class nil: it is no instance of a class
function M.of(object)
  local meta = getmetatable(object)
  if type(meta) ~= "table" or rawget(meta, ORDER) then return nil end
  local class = rawget(meta, CLASS) or rawget(meta, "__index") -- the host makes instances of handlers by itself
  return M.is(class) and class or nil
end

---@param object any
---@param class moonport.Class
---@return boolean whether it was made of that class, or of one that derives from it
function M.isinstance(object, class)
  local its = M.of(object)
  for _, c in ipairs(its and M.mro(its) or {}) do
    if c == class then return true end
  end
  return false
end

-- ---------------------------------------------------------------- C3

---@class moonport.class.List classes that must keep this order
---@field classes moonport.Class[]
---@field at integer the first that has no place yet
---@field owner string whose order it is

---@param lists moonport.class.List[]
---@param class moonport.Class
---@return moonport.class.List? list one that has other classes before this one
local function list_before(lists, class)
  for _, list in ipairs(lists) do
    for i = list.at + 1, #list.classes do
      if list.classes[i] == class then return list end
    end
  end
end

---@param lists moonport.class.List[]
---@return moonport.Class? class that none has others before
local function next_of(lists)
  for _, list in ipairs(lists) do
    local head = list.classes[list.at]
    if head and not list_before(lists, head) then return head end
  end
end

---Goes from one class to what must come before it, until that is one it has been to.
---@param lists moonport.class.List[] of which no first class can be taken
---@return string
local function contradiction(lists)
  local said, seen, head = {}, {}, nil
  for _, list in ipairs(lists) do head = head or list.classes[list.at] end
  repeat
    seen[head] = true
    local list = list_before(lists, head)
    local before = list.classes[list.at]
    said[#said + 1] = ("%s comes before %s in %s"):format(M.name(before), M.name(head), list.owner)
    head = before
  until seen[head]
  return table.concat(said, ", but ")
end

---@param class moonport.Class
---@param bases moonport.Class[]
---@return moonport.Class[]? order
---@return string? why
local function linearize(class, bases)
  local lists, order, left = {}, { class }, 0
  for i, base in ipairs(bases) do lists[i] = { classes = M.mro(base), at = 1, owner = M.name(base) } end
  lists[#lists + 1] = { classes = bases, at = 1, owner = "the list of bases" }
  for _, list in ipairs(lists) do left = left + #list.classes end
  while left > 0 do
    local head = next_of(lists)
    if not head then return nil, contradiction(lists) end
    order[#order + 1] = head
    for _, list in ipairs(lists) do
      if list.classes[list.at] == head then
        list.at = list.at + 1
        left = left - 1
      end
    end
  end
  return order
end

-- ---------------------------------------------------------------- making classes and instances

---@param order moonport.Class[]
---@param from integer
---@return any
local function look_up(order, from, key)
  for i = from, #order do
    local value = rawget(order[i], key)
    if value ~= nil then return value end
  end
end

---@param class moonport.Class
---@return table metatable of its instances
local function gather(class)
  local order, meta = M.mro(class), {}
  for i = #order, 1, -1 do
    for key, value in pairs(order[i]) do
      if type(key) == "string" and key:find("^__") then meta[key] = value end
    end
  end
  local other = meta.__index
  meta.__init, meta.__index, meta.__name, meta[CLASS] = nil, class, M.name(class), class
  if type(other) == "function" then
    function meta.__index(object, key)
      local value = class[key]
      if value == nil then value = other(object, key) end
      return value
    end
  end
  return meta
end

---An instance whose constructor has not run.
---@param class moonport.Class
---@return table
function M.instance(class)
  local own = getmetatable(class)
  own[INSTANCES] = own[INSTANCES] or gather(class)
  return setmetatable({}, own[INSTANCES])
end

local function construct(class, ...)
  local object = M.instance(class)
  if class.__init then class.__init(object, ...) end
  return object
end

local function describe(class) return "class " .. M.name(class) end

---@param name string
---@param bases moonport.Class[]
---@param n integer
---@return string? why
local function judge(name, bases, n)
  for i = 1, n do
    if not M.is(bases[i]) then
      local what = bases[i] == nil and "nil" or "a " .. type(bases[i])
      return ("class %s: base %d is no class, but %s"):format(name, i, what)
    end
    for j = 1, i - 1 do
      if bases[j] == bases[i] then return ("class %s: base %s stands there twice"):format(name, M.name(bases[i])) end
    end
  end
end

---Makes a class. Bases that come first are asked first; an order that contradicts itself raises.
---@param name string
---@param ... moonport.Class bases
---@return moonport.Class
function M.new(name, ...)
  if type(name) ~= "string" then error("a class needs a name: class(\"MyServer\", ...)", 2) end
  local bases = { ... }
  local why = judge(name, bases, select("#", ...))
  if why then error(why, 2) end
  local class = {}
  local meta = { [NAME] = name, __name = "class", __call = construct, __tostring = describe }
  local order
  order, why = linearize(setmetatable(class, meta), bases)
  if not order then error(("class %s: no order suits all its bases: %s"):format(name, why), 2) end
  meta[ORDER] = order
  if #bases == 1 then
    meta.__index = bases[1] -- the same, and Lua does it by itself
  elseif #bases > 1 then
    function meta.__index(_, key) return look_up(order, 2, key) end
  end
  return class
end

---What comes behind a class in the order of an object's own, which a mixin cannot know by name:
---`class.super(LogMixIn, self).process_request(self, request, client_address)`.
---@param class moonport.Class
---@param object table
---@return table
function M.super(class, object)
  local order = M.mro(M.of(object) or error("super: the object is no instance of a class", 2))
  for i, c in ipairs(order) do
    if c == class then
      return setmetatable({}, { __index = function(_, key) return look_up(order, i + 1, key) end })
    end
  end
  error(("super: the object is no %s"):format(M.is(class) and M.name(class) or "instance of a class"), 2)
end

return M
