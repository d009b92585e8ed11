-- A mail server: EHLO, STARTTLS, AUTH PLAIN and LOGIN, many recipients, DATA. It keeps the mails that it gets, and
-- accepts any user and password.
--
--   moonport mock scripts/mocks/smtp.lua
--   swaks --server 127.0.0.1:PORT --to ann@example.test --from bob@example.test
--   curl smtp://127.0.0.1:PORT --mail-from bob@example.test --mail-rcpt ann@example.test -T mail.txt
--
-- Its state: `mails`, a list of { from=, to={...}, auth= in base64 as it was sent, data= }; `refuse`, what to answer
-- instead at a stage: connect, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, or "." for the end of the data. A full disk,
-- from a test:
--   PUT /servers/smtp/state {"mails": [], "refuse": {".": "452 4.3.1 Insufficient system storage"}}
local mock = require("moonport.mock")

local smtp = mock.server { "tcp://127.0.0.1:0", name = "smtp", frame = mock.line "\r\n", tls = "starttls" }

smtp.state.mails = {}
smtp.state.refuse = {}

-- What the state says of this stage, else `reply`; and whether it is that.
local function answer(c, stage, reply)
  local refusal = smtp.state.refuse[stage]
  c:send(refusal or reply, "\r\n")
  return not refusal
end

-- A stub for a command, also in small letters: "^[Mm][Aa][Ii][Ll] FROM:<(.-)>".
local function on(verb, rest, reply)
  smtp:on("^" .. verb:gsub("%a", function(a) return ("[%s%s]"):format(a, a:lower()) end) .. rest, reply)
end

local function forget(c) c.state.from, c.state.to = nil, {} end

smtp:session(function(c)
  forget(c)
  if not answer(c, "connect", "220 mock ESMTP") then return c:close() end
  return c:serve()
end)

on("EHLO", " ", function(c)
  answer(c, "EHLO", "250-mock\r\n250-8BITMIME\r\n" .. (c.tls and "" or "250-STARTTLS\r\n") .. "250 AUTH PLAIN LOGIN")
end)
on("HELO", " ", function(c) answer(c, "EHLO", "250 mock") end)

on("STARTTLS", "$", function(c)
  if c.tls then return "503 5.5.1 TLS is active\r\n" end
  if not answer(c, "STARTTLS", "220 2.0.0 Ready to start TLS") then return end
  c:starttls()
  forget(c)
  c.state.auth = nil
end)

on("AUTH PLAIN", "%s*(.*)$", function(c, secret)
  if secret == "" then
    c:send "334 \r\n"
    secret = c:recv()
  end
  if answer(c, "AUTH", "235 2.7.0 Authentication successful") then c.state.auth = secret end
end)
on("AUTH LOGIN", "%s*(.*)$", function(c, user)
  if user == "" then
    c:send "334 VXNlcm5hbWU6\r\n" -- "Username:"
    user = c:recv()
  end
  c:send "334 UGFzc3dvcmQ6\r\n" -- "Password:"
  c:recv()
  if answer(c, "AUTH", "235 2.7.0 Authentication successful") then c.state.auth = user end
end)

on("MAIL", " [Ff][Rr][Oo][Mm]:%s*<(.-)>", function(c, from)
  forget(c)
  if answer(c, "MAIL", "250 2.1.0 Ok") then c.state.from = from end
end)
on("RCPT", " [Tt][Oo]:%s*<(.-)>", function(c, to)
  if not c.state.from then return "503 5.5.1 MAIL first\r\n" end
  if answer(c, "RCPT", "250 2.1.5 Ok") then table.insert(c.state.to, to) end
end)
on("DATA", "$", function(c)
  if #c.state.to == 0 then return "503 5.5.1 RCPT first\r\n" end
  if not answer(c, "DATA", "354 End data with <CR><LF>.<CR><LF>") then return end
  local lines, line = {}, c:recv()
  while line and line ~= "." do
    lines[#lines + 1] = line:gsub("^%.", "") -- a line that begins with a dot comes with one more
    line = c:recv()
  end
  if line and answer(c, ".", "250 2.0.0 Ok: kept") then
    local mail = { from = c.state.from, to = c.state.to, auth = c.state.auth, data = table.concat(lines, "\r\n") }
    table.insert(smtp.state.mails, mail)
  end
  forget(c)
end)

on("RSET", "$", function(c)
  forget(c)
  return "250 2.0.0 Ok\r\n"
end)
on("NOOP", "", "250 2.0.0 Ok\r\n")
on("VRFY", " ", "252 2.0.0 Send it and see\r\n")
on("QUIT", "$", function(c)
  c:send "221 2.0.0 Bye\r\n"
  c:close()
end)
smtp:otherwise "502 5.5.2 Command not known\r\n"

return smtp -- for variants: see smtp_full.lua
