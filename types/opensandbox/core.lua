---@meta opensandbox.core
--- The types of the C core, for editors. It is internal: its documents are the comments in src/lua_*.c.

---@class opensandbox.Core
---@field curl_version string
---@field async_dns boolean
local core = {}

---@return opensandbox.CoreMulti
function core.multi() end

---@return opensandbox.CorePoller? poller nil while too many files are open
function core.poller() end

---@return opensandbox.CoreNotifier? notifier
---@return string? message
---@return string? errno
function core.notifier() end

---@param limit integer bytes of one event
---@return opensandbox.CoreEventStream
function core.event_stream(limit) end

---@param limit integer bytes of one message
---@param masked boolean
---@return opensandbox.CoreWebSocketReader
function core.websocket_reader(limit, masked) end

---@param type "text"|"binary"|"ping"|"pong"
---@param bytes string
---@param mask? string
---@return string frame
function core.websocket_frame(type, bytes, mask) end

---@param code integer
---@param reason string
---@param mask? string
---@return string frame
function core.websocket_close_frame(code, reason, mask) end

---@param key string
---@return string
function core.websocket_accept(key) end

---@return number seconds on the monotonic clock
function core.now() end

---@return number seconds since 1970
function core.wall_clock() end

---@return integer number differs between a process and its forked children
function core.process() end

---@param count integer
---@return string? bytes
---@return string? message
---@return string? errno
function core.random(count) end

---@param path string
---@return string? kind
---@return integer|string size_or_message
---@return integer|string mode_or_errno
---@return number? mtime
function core.stat(path) end

---@param path string
---@return string? kind
---@return integer|string size_or_message
---@return integer|string mode_or_errno
---@return number? mtime
---@return string? target
function core.lstat(path) end

---@param path string
---@return boolean? replaceable
---@return string? message
---@return string? errno
function core.is_replaceable(path) end

---@param path string
---@return string[]? names
---@return string? message
---@return string? errno
function core.list_directory(path) end

---@param path string
---@param mode integer
---@return true? ok
---@return string? message
---@return string? errno
function core.mkdir(path, mode) end

---@param target string
---@param path string
---@return true? ok
---@return string? message
---@return string? errno
function core.symlink(target, path) end

---@param path string
---@return true? ok
---@return string? message
---@return string? errno
function core.create(path) end

---@param path string
---@param mode integer
---@return true? ok
---@return string? message
---@return string? errno
function core.chmod(path, mode) end

---@param path string
---@param seconds number
---@return true? ok
---@return string? message
---@return string? errno
function core.utime(path, seconds) end

---@param state integer
---@param bytes string
---@return integer state
function core.cksum(state, bytes) end

---@param state integer
---@param size integer
---@return integer sum
function core.cksum_final(state, size) end

---@param path string
---@return integer? server
---@return integer|string program_or_message
---@return string? errno
function core.open_pty(path) end

---@param fd integer
---@param columns integer
---@param rows integer
---@return true? ok
---@return string? message
---@return string? errno
function core.resize_pty(fd, columns, rows) end

---@param ... string names of signals
---@return integer? fd
---@return string? message
---@return string? errno
function core.catch_signals(...) end

---@return string? name
function core.next_signal() end

---@param name string
---@return true? ok
---@return string? message
---@return string? errno
function core.default_signal(name) end

---@param name string
function core.die_by_signal(name) end

---@return true? ok
---@return string? message
---@return string? name of errno
function core.open_standard_streams() end

---@param fd integer
---@return boolean
function core.is_terminal(fd) end

---@param fd integer
---@return integer? columns
---@return integer? rows
function core.terminal_size(fd) end

---@param fd integer
---@return table? raw
---@return string? message
---@return string? errno
function core.raw_mode(fd) end

---@param list integer[]
---@param seconds? number
---@return table<integer, true>
function core.wait_readable(list, seconds) end

---@param fd integer
---@return string? bytes
---@return string? message
---@return string? errno
function core.read(fd) end

---@param fd integer
---@param bytes string
---@return true? ok
---@return string? message
---@return string? errno
function core.write(fd, bytes) end

---@class opensandbox.CoreMulti
local multi = {}

---@param request table
---@return opensandbox.CoreTransfer
function multi:request(request) end

---@param request table
---@return opensandbox.CoreTransfer
function multi:websocket(request) end

---@return integer? fd
function multi:pollfd() end

---@return string
function multi:events() end

---@return number? seconds
function multi:timeout() end

---@param seconds? number
function multi:step(seconds) end

---@return integer
function multi:getfd() end

---@return boolean
function multi:dirty() end

---@return integer
function multi:inflight() end

---@return integer? id
function multi:changed() end

---@param seconds? number
function multi:close(seconds) end

---@class opensandbox.CoreTransfer
local transfer = {}

---@return integer
function transfer:id() end

---@return boolean
function transfer:sent() end

---@return integer? status
---@return string[] lines
function transfer:head() end

---@param most integer
---@return string? bytes
function transfer:read(most) end

---@return integer
function transfer:queued() end

---@return string? event
---@return string? problem
function transfer:next_event() end

---@return string? stream
---@return string? text
---@return string? problem
function transfer:next_output() end

---@return string? name
---@return string? message
---@return boolean? sent
function transfer:outcome() end

---@return integer received
---@return integer sent
function transfer:progress() end

---@return integer? part
function transfer:wants() end

---@param part integer
---@param bytes? string
---@return true?
function transfer:write(part, bytes) end

---@param seconds number
---@param wait_on_close? boolean
function transfer:detach(seconds, wait_on_close) end

---@return "text"|"binary"|nil type
---@return string? bytes
function transfer:receive() end

---@param type "text"|"binary"
---@param bytes string
---@return boolean?
function transfer:send(type, bytes) end

---@param code integer
---@param reason? string
---@return true?
function transfer:send_close(code, reason) end

---@return integer? code
---@return string? reason
function transfer:close_status() end

---@return integer
function transfer:unsent() end

function transfer:close() end

---@class opensandbox.CorePoller
local poller = {}

---@return boolean
function poller:inherited() end

---@param fd integer
function poller:watch(fd) end

---@param seconds? number
---@return true?
function poller:alarm(seconds) end

---@param seconds? number
function poller:wait(seconds) end

---@return integer? fd
function poller:pollfd() end

function poller:close() end

---@class opensandbox.CoreNotifier
local notifier = {}

---@return string
function notifier:path() end

---@return true? ok
---@return string? message
---@return string? errno
function notifier:accept() end

---@param fd integer
---@return true? ok
---@return string? message
---@return string? errno
function notifier:arm(fd) end

function notifier:close() end

---@class opensandbox.CoreEventStream
local event_stream = {}

---@param bytes string
---@return any
function event_stream:feed(bytes) end

---@return any
function event_stream:finish() end

---@return string? event
---@return string? problem
function event_stream:next() end

---@class opensandbox.CoreWebSocketReader
local websocket_reader = {}

---@param bytes string
function websocket_reader:feed(bytes) end

---@return string? type
---@return string? bytes
---@return integer? code
function websocket_reader:next() end

return core
