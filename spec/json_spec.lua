local json = require("moonport.json")

describe("moonport.json", function()
  it("gives back what it was given, integers as integers", function()
    for _, text in ipairs {
      '[]', '{}', '[[],{}]', '{"a":[1,-2,0,9223372036854775807,-9223372036854775808],"b":null,"c":true,"d":false}',
      '"\\u0000\\n\\"\\\\\195\164\240\159\140\153"', '0.1', '-1.5e+300', '[1.25,123456789012]', '"\\u007f"',
    } do
      assert.are.equal(text, json.encode(assert(json.decode(text))))
    end
    assert.are.equal("integer", math.type(json.decode("12")))
    assert.are.equal("float", math.type(json.decode("1.0")))
    assert.are.equal("12", json.encode(12.0))
  end)

  it("reads escapes and pairs of surrogates", function()
    assert.are.equal('\u{1F319}/\b\f\n\r\t"\\é', json.decode('"\\ud83c\\uDF19\\/\\b\\f\\n\\r\\t\\"\\\\\\u00e9"'))
  end)

  it("knows empty arrays, and null", function()
    assert.is_true(json.is_array(json.decode("[]")))
    assert.is_false(json.is_array(json.decode("{}")))
    assert.are.equal("[]", json.encode(json.array {}))
    assert.are.equal(json.null, json.decode("null"))
    assert.are.same({ a = { 1 } }, json.plain(json.decode('{"a":[1],"b":null}')))
  end)

  for _, text in ipairs {
    "", " ", "{", "[", "[1", "[1,", "[1,]", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', "{a:1}", "{1:1}",
    "'a'", "nul", "nulL", "True",
    "01", "-", "-01", "+1", ".5", "1.", "1.e5", "1e", "0x10", "NaN", "Infinity", "-Infinity", "1e999", "-1e999",
    "9223372036854775808", "99999999999999999999", '"', '"a', '"\\', '"\\x41"', '"\\u12"', '"\\ud83c"', '"\\ud83cx"',
    '"\\udf19"', '"\\ud83c\\u0041"', '"a\nb"', '"a\0b"', '"\255"', '"\237\160\128"', "1 2", "[1]]", "[1 2]", '{"a" 1}',
    '{"a":1,"a":2}', "/* */ 1", "\239\187\1911", ("["):rep(65) .. ("]"):rep(65), ("["):rep(100000),
    ('{"a":'):rep(65) .. "1" .. ("}"):rep(65),
  } do
    it(("refuses %q"):format(text:sub(1, 30)), function()
      local value, why = json.decode(text)
      assert.is_nil(value)
      assert.matches("^byte %d+: ", why)
    end)
  end

  it("takes 64 levels", function() assert.is_truthy(json.decode(("["):rep(64) .. ("]"):rep(64))) end)

  it("writes nothing that is no JSON", function()
    local loop = {}
    loop.loop = loop
    for _, value in ipairs { 0 / 0, math.huge, "\255", { [true] = 1 }, { [1.5] = 1 }, print, loop } do
      assert.has_error(function() json.encode(value) end)
    end
  end)
end)
