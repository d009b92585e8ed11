---@meta moonport.tls
-- luacheck: ignore 241 212
-- The server's side of TLS, between bytes and bytes: what the mocks' `tls =` stands on. OpenSSL is loaded by the first
-- call. What is refused is nil and a sentence; wrong arguments raise.
---@class moonport.tls
local tls = {}

---Makes a certificate that signs itself, ECDSA on P-256.
---@param options { names: string[], days?: integer } host names and addresses; how many days it is valid, 365 unless
---given: -1 expired a day ago
---@return string? certificate in PEM
---@return string key in PEM; or why there is none
function tls.certificate(options) end

---@param pair { certificate: string, key: string } in PEM: the certificate with its chain behind it; the key, not
---encrypted
---@return moonport.tls.Context?
---@return string? why
function tls.context(pair) end

---@class moonport.tls.Context
local Context = {}

---@return moonport.tls.Engine engine of one connection
function Context:engine() end

---One connection. Whatever is called, there may be output() for the peer then.
---@class moonport.tls.Engine
local Engine = {}

---@param bytes string of the peer
function Engine:give(bytes) end

---@return string? bytes for the peer; nil: none
function Engine:output() end

---@return true? done
---@return string? why "wait" for more of the peer, or what went wrong, after which the engine is of no more use
function Engine:handshake() end

---@return string? bytes at most 16 KiB, and maybe more the next time
---@return string? why "wait", "closed" by the peer as it should be, or what went wrong
function Engine:read() end

---@param bytes string
---@return string? sealed with all that output() would have given
---@return string? why
function Engine:seal(bytes) end

---Says to the peer that no more comes.
function Engine:close() end

---@return { version: string, cipher: string, server_name: string? }
function Engine:info() end

---Its memory, some 50 KiB, goes back now; Lua's collector does not know of it. Nothing else may be called then.
function Engine:free() end

return tls
