---@meta moonport.journal
-- luacheck: ignore 241
-- What happened on the connections of mocks, for editors; nothing here runs.
--
-- One journal for all scripts of a host whose requests run on its own thread (async and sync), outside their Lua
-- states: a reload keeps it. Under threading and forking `require` raises. Bounded: the oldest records are dropped, and
-- counted. An append never fails.

---@class moonport.journal
local journal = {}

---"closed" has in its detail who did it: "fin" or "rst" (the peer), "closed" or "reset" (we), "cancelled".
---@alias moonport.journal.Kind
---| "open"
---| "received"
---| "unmatched"
---| "sent"
---| "partial"
---| "closed"
---| "toxic"
---| "note"
---| "reload"
---| "error"
---| "failed"
---| "push"

---Notes a new connection.
---@param request moonport.Request|moonport.Socket|nil whose connection gets the number; nil for a datagram
---@param server string at most 255 bytes, as everywhere
---@param client string the record's data
---@return integer conn its number, like no other's in this process
---@return integer nth which one of the server it is, from 1
function journal.open(request, server, client) end

---Adds a record.
---@param kind moonport.journal.Kind
---@param server string? nil: of none
---@param conn integer? nil or 0: of none
---@param data string? of which 64 KiB are kept
---@param detail string? of which 16 KiB are kept
---@return integer seq its number; also of one that could not be kept
function journal.add(kind, server, conn, data, detail) end

---A function that adds records of this kind and connection, and is cheaper than add.
---@param kind moonport.journal.Kind
---@param server string
---@param conn integer?
---@return fun(data: string, detail?: string)
function journal.writer(kind, server, conn) end

---Adds a record of kind "failed", whose text is kept for the verdict.
---@param server string?
---@param conn integer?
---@param text string
---@return integer seq
function journal.fail(server, conn, text) end

---Sets a flag that outlives a reload.
---@param key string
function journal.mark(key) end

---@param key string
---@return boolean
function journal.marked(key) end

---For journal.next: a set of kinds.
---@param kinds moonport.journal.Kind[]
---@return integer
function journal.mask(kinds) end

---The first record past `after`, of these kinds and of that server. After a nil all up to `last` were looked at: go on
---from there, not from the last one found.
---@param after integer 0: from the oldest that is kept
---@param kinds? integer a mask; all
---@param server? string any
---@return integer? seq
---@return moonport.journal.Kind|integer kind after a nil: `last`
---@return string? server
---@return integer conn 0: none
---@return number time seconds since 1970 with a fraction, read once each turn of the loop
---@return string data "" if there is none
---@return string? detail
---@return integer length of the data before they were cut
function journal.next(after, kinds, server) end

---Waits until there is a record past `after`; others run.
---@param after integer
---@param seconds? number for ever; 0 asks and does not wait
---@return boolean there_is false when the time is over
function journal.wait(after, seconds) end

---@return integer seq the newest number; 0: none was given yet
function journal.last() end

---@return integer seq of the oldest record that is kept; last() + 1: none is
function journal.first() end

---Since the start, or clear(); what was dropped is counted as well.
---@class moonport.journal.Counts
---@field open integer and so on for each kind
---@field received integer
---@field unmatched integer
---@field sent integer
---@field partial integer
---@field closed integer
---@field toxic integer
---@field note integer
---@field reload integer
---@field error integer
---@field failed integer
---@field push integer
---@field bytes_in integer received and partial
---@field bytes_out integer sent and push
---@field dropped integer

---@class moonport.journal.Info
---@field limit integer bytes
---@field bytes integer in use
---@field records integer that are kept
---@field first integer
---@field last integer
---@field dropped integer records
---@field failures integer
---@field servers table<string, moonport.journal.Counts>

---@return moonport.journal.Info
function journal.info() end

---@return string[] texts of failures; of all together 1 MiB is kept
---@return integer n how many there were
function journal.failures() end

---@param bytes? integer the new bound, at least 128 KiB; 64 MiB at first
---@return integer bytes
function journal.limit(bytes) end

---Forgets some or all of that: records, and how many were dropped; counts, by which the connections of a server are
---numbered as well (`nth`); the verdict, which is failures and marks. Sequence numbers and connections go on.
---@param ... "records"|"counts"|"verdict" all
function journal.clear(...) end

return journal
