-- The redis of redis.lua, whose first connection is reset when it asks for something: does the client try again?
--
--   moonport mock scripts/mocks/redis_flaky.lua
--   redis-cli -p PORT ping      Error: Connection reset by peer
--   redis-cli -p PORT ping      PONG
--
-- From a test the same: POST /servers/redis/toxics {"type": "reset_peer", "first": 1}
local redis = require("redis") -- from this file's folder

redis:session(function(c)
  if c.nth == 1 then
    c:recv()
    return c:reset()
  end
  return c:serve()
end)

return redis
