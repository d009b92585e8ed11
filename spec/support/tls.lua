--- A client of mocks that speak TLS: Python's ssl.

local host = require("support.host")

local M = {}

local HEAD = [[
import os, socket, ssl, sys
port, pem = int(sys.argv[1]), sys.argv[2]
def connect(): return socket.create_connection(("127.0.0.1", port), timeout=10)
def context():
    c = ssl.create_default_context(cafile=pem)
    c.verify_flags |= ssl.VERIFY_X509_STRICT
    return c
def secure(c=None, name="localhost", ctx=None):
    return (ctx or context()).wrap_socket(c or connect(), server_hostname=name, suppress_ragged_eofs=False)
def line(c):
    got = b""
    while not got.endswith(b"\n"):
        more = c.recv(1)
        if not more: break
        got += more
    return got.decode("latin-1")
def whole(c, n):
    got = b""
    while len(got) < n: got += c.recv(65536)
    return got
def raw(c): # the same socket without TLS
    r = socket.socket(fileno=os.dup(c.fileno()))
    r.settimeout(10)
    return r
def end(c): # an exception unless TLS was closed as it should be
    try: return "end" if c.recv(1) == b"" else "more"
    except OSError as e: return type(e).__name__
def say(*what, **how): print(*what, flush=True, **how)
]]

---What the client prints.
---@param url string
---@param certificate string in PEM
---@param code string Python, which finds the functions above
---@return string
function M.python(url, certificate, code)
  local folder = host.folder()
  local pem = host.write(certificate, folder .. "/certificate.pem")
  local script = host.write(HEAD .. code:gsub("^\n", ""), folder .. "/client.py")
  local p = assert(io.popen(("timeout 20 python3 %s %s %s 2>&1"):format(script, url:match("%d+$"), pem)))
  local out = p:read("a")
  p:close()
  return out
end

---@param m spec.Mocks
---@param server string
---@return string certificate
function M.certificate(m, server)
  return m:ask(("return mock.control('describe', { server = %q }).tls.certificate"):format(server))
end

return M
