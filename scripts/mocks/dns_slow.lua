-- The name server of dns.lua, slower than its clients like it: each answer takes two seconds.
--
--   moonport mock scripts/mocks/dns_slow.lua
--   dig @127.0.0.1 -p PORT example.test +timeout=1 +tries=1       ;; no servers could be reached
--
-- How slow it is can be changed from a test: PATCH /servers/dns/toxics/slow {"attributes": {"latency": 200}}
local dns = require("dns") -- from this file's folder

dns:toxic { type = "latency", name = "slow", latency = 2000 } -- milliseconds, as in Toxiproxy

return dns
