---@meta moonport
-- luacheck: ignore 241
-- What the host gives to a script, for editors; nothing here runs. In full: docs/handlers.md.
--
-- Write `---@class Upper: moonport.StreamHandler` above `local Upper = {}`, and `self.rfile:` completes.

---@alias moonport.Address moonport.InetAddress|string a string for Unix sockets: a path, "@name", "" when unnamed

---`{host, port}`, also by name; tostring gives "127.0.0.1:51812" or "[::1]:51812".
---@class moonport.InetAddress
---@field [1] string host
---@field [2] integer port
---@field host string
---@field port integer

---What the host raises. A read returns `nil, why` instead.
---@class moonport.Error
---@field code string "timeout", "cancelled", "cpu_limit", or an errno's name such as "ECONNRESET"
---@field message string what tostring gives
---@field errno integer? of the system

-- ---------------------------------------------------------------- handlers

---What handlers of both kinds have. The attributes may stand here or in `server`.
---@class moonport.Handler
---@field server moonport.Server in an instance; in the class a table of attributes and hooks, moonport.ServerTable
---@field client_address moonport.Address
---@field rfile moonport.RFile
---@field wfile moonport.WFile
---@field timeout number|false|nil seconds for each read or write; none by default
---@field rbufsize integer? most bytes that a receive asks for; -1, the default: 64 KiB
---@field wbufsize integer? bytes collected before a send; -1, the default: 64 KiB; 0: none
---@field disable_nagle_algorithm boolean? true by default
---@field setup? fun(self: self) runs before handle
---@field handle fun(self: self) the request; the only one a handler must have
---@field finish? fun(self: self) runs last, whatever happened
---@field save? fun(): any when the code is replaced, in the old one: plain data for the new one's init, or nil
---@field init? fun(data: any) in the new code, before its first request, if save returned something
---@field cpu_limit number|false|nil seconds of CPU time between two waits; 5 by default
---@field time_slice number|false|nil seconds of CPU time before others have their turns; 0.01 by default

---@class moonport.StreamHandler: moonport.Handler
---@field request moonport.Request
---@field connection moonport.Request the same object

---@class moonport.DatagramHandler: moonport.Handler
---@field request { [1]: string, [2]: moonport.DatagramSocket } data and socket
---@field packet string request[1]
---@field socket moonport.DatagramSocket request[2]
---@field truncated integer? length of the datagram as it was sent, if it was cut to max_packet_size

---The handler's `server` table. Options on the command line go before it.
---@class moonport.ServerTable
---@field request_queue_size integer? 511
---@field max_connections integer? 1024; async: requests at once
---@field max_threads integer? 256; threading: requests at once, and threads
---@field thread_idle_timeout number? 60 seconds; threading: then a thread without work, and its Lua state, ends
---@field max_children integer? 40; forking: processes at once
---@field max_requests_per_child integer? 1; forking: above 1, max_children are kept ready, each for so many requests
---@field daemon_threads boolean? false; threading: true cancels requests as soon as the server stops
---@field block_on_close boolean? true; threading, forking: false does so
---@field max_packet_size integer|string|nil 8192; sizes may be strings such as "64K"
---@field max_line integer|string|nil 65536
---@field memory_limit integer|string|nil 256 MiB for each Lua state; --option's holds while the script is loaded
---@field rbufsize integer|string|nil
---@field wbufsize integer|string|nil
---@field socket_mode string|integer|nil "600": octal digits in a string, or a number such as tonumber("600", 8)
---@field allow_reuse_address boolean? true
---@field allow_reuse_port boolean? false
---@field ipv6_v6only boolean? false
---@field disable_nagle_algorithm boolean? true
---@field timeout number|false|nil seconds
---@field idle_timeout number|false|nil seconds
---@field request_timeout number|false|nil seconds
---@field cpu_limit number|false|nil 5 seconds of CPU time between two waits, then the request is ended
---@field time_slice number|false|nil 0.01 seconds of CPU time before others have their turns
---@field retire_timeout number? 60 seconds that requests of replaced code may go on; 0: for ever
---@field drain_timeout number? 15 seconds
---@field cancel_grace number? 5 seconds
---@field verify_request? fun(server: moonport.Server, request: any, client_address: moonport.Address): boolean
---@field handle_error? fun(server: moonport.Server, request: any, client_address: moonport.Address, err: any)

-- ---------------------------------------------------------------- server

---Also has every attribute of moonport.ServerTable, with its value in force, and any field that a script sets:
---those are shared by all requests of one Lua state.
---@class moonport.Server
---@field server_address moonport.Address where it listens
---@field name string "upper"; "upper-2" for a second listener
---@field class string "AsyncTCPServer"
---@field url string "tcp://127.0.0.1:9999"
---@field request_queue_size integer
---@field max_connections integer
---@field max_threads integer
---@field thread_idle_timeout number
---@field max_children integer
---@field max_requests_per_child integer
---@field daemon_threads boolean
---@field block_on_close boolean
---@field max_packet_size integer
---@field max_line integer
---@field memory_limit integer
---@field rbufsize integer
---@field wbufsize integer
---@field socket_mode integer
---@field allow_reuse_address boolean
---@field allow_reuse_port boolean
---@field ipv6_v6only boolean
---@field disable_nagle_algorithm boolean
---@field timeout number?
---@field idle_timeout number?
---@field request_timeout number?
---@field cpu_limit number?
---@field time_slice number?
---@field retire_timeout number
---@field drain_timeout number
---@field cancel_grace number
---@field [string] any
local Server = {}

---Takes no more requests and lets those under way end, for at most drain_timeout. Returns at once.
function Server:shutdown() end

---Loads the script again, for all its listeners; waits for that. The request goes on with the code that it has.
---@return integer? generation the new one's number
---@return string? why the old code stays
function Server:reload() end

---Counters of all threads, children and workers, new at each call. What threads and children of other workers have
---counted shows within 50 ms; what is not a counter (`tasks` to `timers`) is this process's.
---@return moonport.Stats
function Server:stats() end

---@return integer descriptor of the listening socket
function Server:fileno() end

---@class moonport.Counters
---@field requests integer begun
---@field active integer now
---@field errors integer ended by an error of the handler
---@field peers_gone integer ended by a peer that went away
---@field timeouts integer ended by a timeout that was raised
---@field cancelled integer ended by the host
---@field cpu_limit integer of the errors: ended for computing too long
---@field out_of_memory integer of the errors: for want of memory
---@field preempted integer slices that were over before the handler waited
---@field refused integer by verify_request
---@field accept_errors integer accept failed, or no thread or child could be had
---@field truncated integer datagrams longer than max_packet_size
---@field unanswered integer replies to senders without an address
---@field send_errors integer datagram replies that the kernel refused
---@field drops integer datagrams that the kernel dropped for want of room
---@field died integer children that a signal has ended
---@field stuck integer of these, in C code that nothing else could end
---@field bytes_in integer under sync and async of the whole host
---@field bytes_out integer
---@field reloads integer
---@field failed_reloads integer
---@field generations integer of the script: the current one, and replaced ones that have requests
---@field workers integer processes that accept; 0 without --workers
---@field workers_died integer that ended by a signal or an error

---The rest is of the host, or under threading of the request's thread.
---@class moonport.Stats: moonport.Counters
---@field generation integer of the script, 1 at the start
---@field tasks integer requests, and tasks that they have spawned, that exist
---@field streams integer
---@field lingering integer connections closed here, not yet by the peer
---@field descriptors integer
---@field timers integer
---@field log_dropped integer log events that nobody took

-- ---------------------------------------------------------------- request

---@alias moonport.SockOpt string a name of socket(7), tcp(7), ip(7) or ipv6(7) in lower case, such as "tcp_nodelay"

---A connected stream.
---@class moonport.Request
local Request = {}

---Whatever has come, waiting if nothing has. Shares its buffer with rfile.
---@param n? integer at most so many bytes; 64 KiB by default
---@return string? data never "" unless n is 0
---@return string? why "closed", "timeout", or the system's message
---@return integer? errno
function Request:recv(n) end

---As recv, with the peer's address.
---@param n? integer
---@return string? data
---@return moonport.Address|string|nil address or why
---@return integer? errno
function Request:recvfrom(n) end

---Sends a part, at least one byte of a string that is not empty. Raises.
---@param s string
---@return integer count
function Request:send(s) end

---Sends all of it. Raises.
---@param s string
---@return true
function Request:sendall(s) end

---Raises always: this is a stream.
function Request:sendto(s, address) end

---@param seconds? number for each read or write from now on; nil: none
function Request:settimeout(seconds) end

---@return number? seconds
function Request:gettimeout() end

---@return moonport.Address?
---@return string? why
---@return integer? errno
function Request:getpeername() end

---@return moonport.Address?
---@return string? why
---@return integer? errno
function Request:getsockname() end

---@return integer descriptor
function Request:fileno() end

---@param how? "read"|"write"|"both" "both" by default; what was written is sent before
---@return true?
---@return string? why
---@return integer? errno
function Request:shutdown(how) end

---Has a recv() that another task waits in return nil, "interrupted". Does not wait.
function Request:interrupt() end

---Waits, reading nothing, until the peer has ended its side; with seconds at most so long. A reset cancels the request,
---as ever. An end behind bytes that the kernel has no room for shows only once they have been read.
---@param seconds? number
---@return true?
---@return string? why "timeout"
function Request:waitend(seconds) end

---While it is true, the peer's end cancels the request, as a reset always does: for a long wait that nobody else has a
---use for. An end that is there already cancels nothing.
---@param need boolean
---@return boolean there whether the peer has not ended its side yet
function Request:needpeer(need) end

---Sends what was written and closes. Every use after that raises, this one included.
---@return true
function Request:close() end

---@return boolean closed here, or over; a peer's end is another thing
function Request:isclosed() end

---@param name moonport.SockOpt
---@param value boolean|number|string
---@return true?
---@return string? why
---@return integer? errno
function Request:setsockopt(name, value) end

---@param name moonport.SockOpt
---@return boolean|integer|string|{ pid: integer, uid: integer, gid: integer }|nil value
---@return string? why
---@return integer? errno
function Request:getsockopt(name) end

---@param mode? "r"|"rb" "r" by default
---@return moonport.RFile
---@overload fun(self: moonport.Request, mode: "w"|"wb"): moonport.WFile
function Request:makefile(mode) end

---A connection that moonport.connect made; also closed by `<close>` and by the garbage collector.
---@class moonport.Socket: moonport.Request

---The socket that a datagram server receives on.
---@class moonport.DatagramSocket
local DatagramSocket = {}

---Sends one datagram, whole. Raises.
---@param data string
---@param address moonport.Address
---@return integer count
function DatagramSocket:sendto(data, address) end

---@return moonport.Address?
---@return string? why
---@return integer? errno
function DatagramSocket:getsockname() end

---@return integer descriptor
function DatagramSocket:fileno() end

---@param name moonport.SockOpt
---@param value boolean|number|string
---@return true?
---@return string? why
---@return integer? errno
function DatagramSocket:setsockopt(name, value) end

---@param name moonport.SockOpt
---@return boolean|integer|string|nil value
---@return string? why
---@return integer? errno
function DatagramSocket:getsockopt(name) end

---Raises always: the server receives on this socket.
function DatagramSocket:recv() end

---Raises always: the server receives on this socket.
function DatagramSocket:recvfrom() end

-- ---------------------------------------------------------------- rfile and wfile

---@alias moonport.Format "l"|"L"|"a"|"n"|integer a line without or with its newline, all, a number, so many bytes

---@class moonport.RFile
local RFile = {}

---Reads as a Lua file does; "l" without a format. On failure the rest of the formats is not read.
---@param ... moonport.Format
---@return any value nil: nothing was read
---@return any why "closed", "timeout", "line too long", "not a number", or the system's message; or the next value
---@return any ... errno, or further values
function RFile:read(...) end

---For `for`: ends at the end of the stream, raises at any other failure.
---@param ... moonport.Format
---@return fun(...): any, ...
---@return any state
function RFile:lines(...) end

---A line with its newline; at the end of the stream what is left.
---@return string? line
---@return string? why
---@return integer? errno
function RFile:readline() end

---@param n integer bytes, 0 or more
---@return string? data exactly n bytes
---@return string? why "closed": fewer were left, and stay unread
---@return integer? errno
function RFile:readexactly(n) end

---@param delimiter string
---@return string? data up to the delimiter, which is included
---@return string? why "closed": it does not come any more, and what is left stays unread
---@return integer? errno
function RFile:readuntil(delimiter) end

---Reads what a string.pack format describes: `rfile:unpack(">I2s4")`.
---@param format string
---@return any ... the values; or nil, why, errno
function RFile:unpack(format) end

---Later reads raise. The connection stays open.
---@return true
function RFile:close() end

---@class moonport.WFile
local WFile = {}

---Takes every byte, or raises. What is small is sent no later than the next wait or the end.
---@param ... string|number
---@return moonport.WFile self
function WFile:write(...) end

---Waits until the kernel has all of it. Raises.
---@return moonport.WFile self
function WFile:flush() end

---Flushes; later writes raise. The connection stays open.
---@return true
function WFile:close() end

---@param mode "full"|"line"|"no" collect (the default), send at each newline, send at once
---@param size? integer bytes to collect, at most and by default 64 KiB
---@return true
function WFile:setvbuf(mode, size) end

-- ---------------------------------------------------------------- module

---@class moonport
---@field version string
---@field coroutine coroutinelib the host's, which in a script is the global one as well
local moonport = {}

---Waits; other requests go on.
---@param seconds number
function moonport.sleep(seconds) end

---Calls f(...) with no other request of this Lua state running meanwhile, as may happen otherwise once a time slice is
---over: for what several requests change together. f may not wait; cpu_limit holds.
---@param f fun(...): ...
---@param ... any
---@return any ... what f returns
function moonport.atomically(f, ...) end

---@return number seconds from some fixed point, never backwards
function moonport.monotonic() end

---@return number seconds since 1970, with a fraction
function moonport.time() end

---Writes one event to the host's log.
---@param level "debug"|"info"|"warn"|"error"
---@param message any as tostring gives it
function moonport.log(level, message) end

---Runs f(...) in a task of its own beside the running request, soon but never at once. It ends with the request, closed
---where it stands. An error in it is an event in the log. Raises where no request runs.
---@param f function
---@param ... any
function moonport.spawn(f, ...) end

---What tasks of one Lua state wait for until another one sets it.
---@class moonport.Event
local Event = {}

---Wakes all that wait. If none does, the next wait returns at once.
function Event:set() end

---Waits until it is set; not at all, if it has been set since the last wait.
---@param seconds? number
---@return true? set
---@return "timeout"? why
function Event:wait(seconds) end

---@return moonport.Event
function moonport.event() end

---The handler of a script that neither returns one nor defines a global `handle`: for libraries that handle
---requests for the script that requires them.
---@param handler table with a function `handle`
function moonport.default_handler(handler) end

---Connects; waits. A bad URL raises.
---@param url string "tcp://127.0.0.1:6379", "unix:///run/x.sock", "unix://@abstract"
---@param seconds? number
---@return moonport.Socket?
---@return string? why "timeout", or the system's message
---@return integer? errno
function moonport.connect(url, seconds) end

-- ---------------------------------------------------------------- in a plain Lua only

---Runs f(...) where it may wait, to its end; sockets that are left open are closed then. Raises what f raises.
---@param f function
---@param ... any
---@return any ... results of f
function moonport.run(f, ...) end

---@class moonport.StartOptions
---@field listen string|string[]|nil URLs; "tcp://127.0.0.1:0"
---@field mixin "async"|"threading"|"sync"|nil "async"
---@field options moonport.ServerTable? attributes, which go before the script's own; drain_timeout is 1
---@field log_level "debug"|"info"|"warn"|"error"|nil what comes to standard error; "warn"

---Where a listener is.
---@class moonport.Place
---@field url string
---@field class string "AsyncTCPServer"
---@field name string "upper"; "upper-2" for a second listener
---@field host string? of an IP address, as port
---@field port integer?
---@field path string? of a Unix socket; "@name" for an abstract one

---A server that runs beside the program; its own place is its first listener's. `<close>` and the collector stop it.
---@class moonport.Started: moonport.Place
---@field servers moonport.Place[] all listeners, in the order of `listen`
local Started = {}

---Takes no more requests, waits for those under way (drain_timeout), and frees all. Harmless when repeated.
function Started:shutdown() end

---Counters of all listeners together. Raises when the server is stopped.
---@return moonport.Counters
function Started:stats() end

---Loads the script again, and waits for that. Raises when the server is stopped.
---@return integer? generation the new one's number
---@return string? why the old code stays
function Started:reload() end

---Serves a script, on a thread of its own, until shutdown(). Raises one sentence if it cannot.
---@param script string a path
---@param options? moonport.StartOptions
---@return moonport.Started
function moonport.start(script, options) end

---Has scripts of mocks run on a thread of their own, with the control API beside them: see moonport/mocked.lua for
---what it returns. `<close>`, the collector and the program's end stop it. Raises one sentence if it cannot.
---@param scripts string|string[] paths
---@param options? moonport.mock.Options
---@return moonport.Mocks
function moonport.mock(scripts, options) end

---Whether what waits may be called here: within moonport.run, or in a request.
---@return boolean
function moonport.may_wait() end

return moonport
