-- The mail server of smtp.lua, whose disk is full: it takes the whole mail, and then refuses it.
--
--   moonport mock scripts/mocks/smtp_full.lua
--   swaks --server 127.0.0.1:PORT --to ann@example.test --from bob@example.test
--   ...
--   <** 452 4.3.1 Insufficient system storage
local smtp = require("smtp") -- from this file's folder

smtp.state.refuse = { ["."] = "452 4.3.1 Insufficient system storage" }

return smtp
