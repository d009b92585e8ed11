local class = require("moonport.class")

-- Names of the order in which a class and its bases are asked.
local function order(c)
  local names = {}
  for i, each in ipairs(class.mro(c)) do names[i] = class.name(each) end
  return table.concat(names, " ")
end

local function failure(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  return err
end

describe("class.new", function()
  it("makes a class that makes instances by a call", function()
    local Dog = class.new("Dog")
    function Dog:__init(name, ...) self.name, self.n = name, select("#", ...) end
    function Dog:speak() return self.name .. " barks" end
    local rex = Dog("Rex", nil, nil)
    assert.are.equal("Rex barks", rex:speak())
    assert.are.equal(2, rex.n)
    assert.are.equal("Dog", class.name(Dog))
    assert.are.equal("class Dog", tostring(Dog))
    assert.are.equal("Dog", getmetatable(rex).__name)
    assert.matches("^Dog: 0x", tostring(rex))
  end)

  it("needs no constructor", function()
    local Plain = class.new("Plain")
    assert.is_nil(next(Plain(1, 2)))
  end)

  it("passes the constructor's error on, and makes nothing", function()
    local Bad = class.new("Bad")
    function Bad.__init() error({ 7 }) end
    assert.are.same({ 7 }, failure(Bad))
  end)

  it("lets instances have fields and methods of their own", function()
    local A = class.new("A")
    A.colour = "red"
    function A:hello() return "hello" end -- luacheck: ignore 212
    local one, two = A(), A()
    one.colour = "blue"
    function one:hello() return "own " .. A.hello(self) end
    assert.are.same({ "blue", "own hello" }, { one.colour, one:hello() })
    assert.are.same({ "red", "hello" }, { two.colour, two:hello() })
  end)

  it("sees what is added to a class or a base later", function()
    local A = class.new("A")
    local B = class.new("B", A)
    local C = class.new("C", class.new("X"), B)
    local c = C()
    A.later, A.no = "here", false
    assert.are.same({ "here", "here", "here", false }, { B.later, C.later, c.later, c.no })
    B.later = nil
    assert.are.equal("here", c.later)
    A.later = nil
    assert.is_nil(c.later)
  end)

  it("reaches a base's method by the base's name", function()
    local A = class.new("A")
    function A:__init(x) self.x = x end
    function A:show() return "A" .. self.x end
    local B = class.new("B", A)
    function B:__init(x) A.__init(self, x + 1) end
    function B:show() return "B" .. A.show(self) end
    assert.are.equal("BA2", B(1):show())
  end)

  it("says what is wrong, and where", function()
    local A = class.new("A")
    assert.matches("^spec/class_spec.lua:%d+: a class needs a name", failure(function() return (class.new(A)) end))
    for text, bases in pairs {
      ["class B: base 2 is no class, but nil"] = table.pack(A, nil),
      ["class B: base 1 is no class, but a table"] = table.pack({}),
      ["class B: base 1 is no class, but a string"] = table.pack("A"),
      ["class B: base A stands there twice"] = table.pack(A, A),
    } do
      local err = failure(function() local b = class.new("B", table.unpack(bases, 1, bases.n)) return b end)
      assert.are.equal(text, (err:gsub("^spec/class_spec.lua:%d+: ", "")))
      assert.are_not.equal(text, err)
    end
  end)
end)

describe("the order of resolution", function()
  it("is the class, then its bases from left to right, for a plain line", function()
    local A = class.new("A")
    local B = class.new("B", A)
    assert.are.equal("C B A", order(class.new("C", B)))
    assert.are.equal("A", order(A))
  end)

  it("has a common base of a diamond behind all that derive from it", function()
    local A = class.new("A")
    local B, C = class.new("B", A), class.new("C", A)
    local D = class.new("D", B, C)
    assert.are.equal("D B C A", order(D))
    A.who, C.who = "A", "C"
    assert.are.equal("C", D.who)
    assert.are.equal("C", D().who)
    assert.are.equal("A", B.who)
  end)

  -- The examples of "The Python 2.3 Method Resolution Order".
  it("is Python's", function()
    local O = class.new("O")
    local F, E, D = class.new("F", O), class.new("E", O), class.new("D", O)
    local C, B = class.new("C", D, F), class.new("B", D, E)
    assert.are.equal("A B C D E F O", order(class.new("A", B, C)))
    local B2 = class.new("B", E, D)
    assert.are.equal("A B E C D F O", order(class.new("A", B2, C)))
  end)

  it("is Python's where one base derives from another's mixin", function()
    local Base = class.new("Base")
    local Tcp = class.new("Tcp", Base)
    local Mix, Log = class.new("Mix"), class.new("Log")
    local MixTcp = class.new("MixTcp", Mix, Tcp)
    assert.are.equal("My Log MixTcp Mix Tcp Base", order(class.new("My", Log, MixTcp)))
    assert.are.equal("My Log MixTcp Mix Tcp Base", order(class.new("My", Log, MixTcp, Tcp)))
  end)

  it("that contradicts itself is an error that tells how", function()
    local X, Y = class.new("X"), class.new("Y")
    local A, B = class.new("A", X, Y), class.new("B", Y, X)
    local err = failure(function() local z = class.new("Z", A, B) return z end)
    assert.matches("^spec/class_spec.lua:%d+: class Z: no order suits all its bases: ", err)
    assert.is_truthy(err:find("Y comes before X in B, but X comes before Y in A", 1, true), err)
    err = failure(class.new, "Z", X, A)
    assert.is_truthy(err:find("X comes before A in the list of bases", 1, true), err)
    assert.is_truthy(err:find("A comes before X in A", 1, true), err)
  end)

  it("that contradicts itself in a circle of three is told whole", function()
    local X, Y, Z = class.new("X"), class.new("Y"), class.new("Z")
    local A, B, C = class.new("A", X, Y), class.new("B", Y, Z), class.new("C", Z, X)
    local err = failure(class.new, "D", A, B, C)
    for _, part in ipairs { "X comes before Y in A", "Y comes before Z in B", "Z comes before X in C" } do
      assert.is_truthy(err:find(part, 1, true), err)
    end
  end)
end)

describe("metamethods", function()
  it("are inherited, also from the second base", function()
    local closed = {}
    local A, Mix = class.new("A"), class.new("Mix")
    function A:__close(err) closed[#closed + 1] = self.name .. ":" .. tostring(err) end
    function Mix:__tostring() return "<" .. self.name .. ">" end
    function Mix:__len() return 7 end -- luacheck: ignore 212
    local B = class.new("B", Mix, A)
    local C = class.new("C", B)
    do
      local c <close> = C()
      c.name = "c"
      assert.are.equal("<c>", tostring(c))
      assert.are.equal(7, #c)
    end
    pcall(function()
      local c <close> = C()
      c.name = "d"
      error("oops", 0)
    end)
    assert.are.same({ "c:nil", "d:oops" }, closed)
  end)

  it("may be replaced, and be reached by the base's name", function()
    local A = class.new("A")
    function A:__tostring() return "A" end -- luacheck: ignore 212
    local B = class.new("B", A)
    function B:__tostring() return "B" .. A.__tostring(self) end
    assert.are.same({ "A", "BA" }, { tostring(A()), tostring(B()) })
  end)

  it("may come after the classes that inherit them, until there is an instance", function()
    local A = class.new("A")
    local B = class.new("B", A)
    function A:__unm() return "minus" end -- luacheck: ignore 212
    assert.are.equal("minus", -B())
  end)

  it("has the collector call __gc", function()
    local A, gone = class.new("A"), 0
    function A:__gc() gone = gone + 1 end -- luacheck: ignore 212
    local B = class.new("B", A)
    for _ = 1, 3 do B() end
    collectgarbage()
    assert.are.equal(3, gone)
  end)

  it("has calls of an instance, and assignments, as the class says", function()
    local A = class.new("A")
    function A:__call(x) return x, self end
    function A:__newindex(key, value) rawset(self, key, value * 2) end
    local a = class.new("B", A)()
    a.x = 2
    assert.are.equal(4, a.x)
    assert.are.same({ 5, a }, { a(5) })
  end)

  it("asks __index for what neither instance nor class has", function()
    local A = class.new("A")
    A.plain, A.no = 1, false
    function A:__index(key) return self.plain .. key end
    local b = class.new("B", A)()
    assert.are.same({ 1, false, "1x" }, { b.plain, b.no, b.x })
    b.x = 9
    assert.are.equal(9, b.x)
  end)

  it("takes the old habit Class.__index = Class for what it means", function()
    local A = class.new("A")
    A.__index = A
    A.x = 1
    local B = class.new("B", A)
    B.y = 2
    assert.are.same({ 1, 2, nil }, { B().x, B().y, B().z })
  end)
end)

describe("class.isinstance", function()
  local A = class.new("A")
  local B = class.new("B", A)

  it("knows the class and its bases", function()
    assert.is_true(class.isinstance(B(), B))
    assert.is_true(class.isinstance(B(), A))
    assert.is_false(class.isinstance(A(), B))
    assert.are.equal(B, class.of(B()))
  end)

  it("knows instances that the host has made of a class", function()
    assert.is_true(class.isinstance(setmetatable({}, { __index = B, __name = "script" }), A))
  end)

  it("takes anything", function()
    for _, value in ipairs { 1, "x", {}, print, io.stdout, setmetatable({}, { __metatable = "no" }), A, B } do
      assert.is_false(class.isinstance(value, A))
    end
    assert.is_false(class.isinstance(nil, A))
    assert.is_false(class.isinstance(B(), nil))
  end)
end)

describe("class.super", function()
  it("goes on behind a mixin, whatever stands there", function()
    local A, B, Log = class.new("A"), class.new("B"), class.new("Log")
    function A:name() return "A" end -- luacheck: ignore 212
    function B:name() return "B" end -- luacheck: ignore 212
    function Log:name() return "log " .. class.super(Log, self).name(self) end
    assert.are.equal("log A", class.new("LA", Log, A)():name())
    assert.are.equal("log B", class.new("LB", Log, B)():name())
    assert.is_nil(class.super(Log, class.new("LA", Log, A)()).no_such_thing)
  end)

  it("says what is wrong", function()
    local A, B = class.new("A"), class.new("B")
    assert.matches("super: the object is no instance of a class", failure(class.super, A, {}))
    assert.matches("super: the object is no B", failure(class.super, B, A()))
  end)
end)
