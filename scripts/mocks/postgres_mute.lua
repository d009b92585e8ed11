-- A PostgreSQL that takes connections, and never says a word: is there a time limit in the client, and does it work?
--
--   moonport mock scripts/mocks/postgres_mute.lua
--   psql "host=127.0.0.1 port=PORT user=moon connect_timeout=2" -c 'SELECT 1'      timeout expired
local postgres = require("postgres") -- from this file's folder

postgres:session(function(c) c:stall() end)

return postgres
