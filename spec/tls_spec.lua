local host = require("support.host")

-- moonport.tls, as a script has it. Handshakes and what comes after them: spec/mock_tls_spec.lua.

-- What a script prints while it is checked.
local function printed(code)
  local path = host.write('local tls = require("moonport.tls")\n' .. code .. "\nreturn { handle = print }")
  local status, out, said = host.run { "check", path }
  assert.are.equal(0, status, said)
  return (out:gsub("[^\n]*: ok\n$", ""))
end

describe("moonport.tls", function()
  after_each(host.cleanup)

  it("wants a certificate and its key, which is not encrypted", function()
    local out = printed [[
      local a, key = tls.certificate { names = { "a" } }
      local b, other = tls.certificate { names = { "b" } }
      print(a ~= b and key ~= other, tls.context { certificate = a, key = other })
      print(select(2, tls.context { certificate = a, key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n"
        .. "-----END ENCRYPTED PRIVATE KEY-----\n" }))
      print(tls.context { certificate = a .. b, key = key } ~= nil)
      print(pcall(tls.context, { certificate = a }))
      print(pcall(tls.certificate, {}))]]
    assert.is_truthy(out:find("true\tnil\tthe key is not the certificate's\n"
      .. "the key is no private key in PEM, or an encrypted one\ntrue\n"
      .. "false\tbad argument #1 to 'moonport.tls.context' (certificate and key are texts in PEM)\n"
      .. "false\tbad argument #1 to 'moonport.tls.certificate' (names: a list of host names or addresses)", 1, true),
      out)
  end)

  it("takes no hello that is none, and is of no more use then", function()
    assert.are.equal("nil\twait\nnil\nnil\thttp request\nnil\thttp request\n"
      .. "false\tbad argument #1 to '?' (it is closed)\n", printed([[
      local certificate, key = tls.certificate { names = { "a" } }
      local engine = tls.context { certificate = certificate, key = key }:engine()
      print(engine:handshake())
      print(engine:output())
      engine:give("GET / HTTP/1.1\r\n\r\n")
      print(engine:handshake())
      print(engine:seal("x"))
      engine:free()
      print(pcall(engine.read, engine))]]))
  end)

  it("survives any bytes, given at once or one by one", function()
    assert.are.equal("true\n", printed([[
      math.randomseed(7)
      local certificate, key = tls.certificate { names = { "a" } }
      local context = tls.context { certificate = certificate, key = key }
      local failed = 0
      for i = 1, 2000 do
        local engine, bytes = context:engine(), {}
        for n = 1, math.random(200) do bytes[n] = string.char(math.random(0, 255)) end
        -- most as if they were a record of the handshake, a part of those a hello
        local head = i % 4 == 0 and "" or "\22\3\1" .. (">I2"):pack(#bytes)
        if i % 2 == 0 and #head > 0 then bytes[1] = "\1\0\0" bytes[2] = string.char(math.max(#bytes - 2, 0)) end
        local text = head .. table.concat(bytes)
        for at = 1, #text, i % 3 == 0 and 1 or #text do
          engine:give(text:sub(at, i % 3 == 0 and at or #text))
          engine:handshake()
          engine:output()
        end
        local _, why = engine:read()
        if why ~= "wait" then failed = failed + 1 end
        engine:close()
      end
      collectgarbage()
      print(failed > 1000)]]))
  end)
end)
