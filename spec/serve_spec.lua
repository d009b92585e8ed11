local host = require("support.host")

describe("moonport serve", function()
  after_each(host.cleanup)

  local kinds = {
    { "TCPServer", "tcp://127.0.0.1:0" },
    { "TCPServer", "tcp://[::1]:0" },
    { "UnixStreamServer", "unix://%s/s" },
    { "UnixStreamServer", "unix://@moonport-spec-%s" },
  }
  for _, mixin in ipairs { "async", "sync" } do
    for _, kind in ipairs(kinds) do
      it("echoes lines under " .. mixin .. " " .. kind[2], function()
        local url = kind[2]:format(host.folder())
        local p = host.start("scripts/echo.lua", { listen = url, args = { "--mixin=" .. mixin } })
        local _, server = next(p.ready.servers)
        assert.are.equal((mixin == "async" and "Async" or "") .. kind[1], server.class)
        local c <close> = host.connect(p:url())
        assert.are.equal("hello", c:ask("hello"))
        assert.are.equal("again", c:ask("again"))
        c:finish()
        assert.are.equal("", c:all())
        p:stop()
      end)
    end
  end
end)
