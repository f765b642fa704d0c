--- Variables for all later commands of a sandbox. execd reads them, before each command, from the file that $EXECD_ENVS names there.
--
-- The file has lines `NAME=value`. The execd of server 1.1.1 understands quotes and escapes; an older one takes a value as it stands and
-- replaces `$NAME` in it. So another command compares the values that execd has read from the lines. If a value is wrong, the file is
-- restored and the other form is tried.

local capabilities = require "opensandbox.http.capabilities"
local deadline = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local helper_commands = require "opensandbox.files.helper_commands"
local options = require "opensandbox.base.options"
local random = require "opensandbox.base.random"
local reason = require "opensandbox.base.reason"

local variables = {}

local FEATURE = "quotes in the file of variables"
local MAX_SIZE = 32 * 1024 -- bytes of all names and values: a script contains them twice, and Linux takes 128 KiB in one argument

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- A value in quotes, unless every execd reads it alike without them. Nothing is special in single quotes; in double quotes, `\` begins an
-- escape.
local function quoted_form(value)
  if value:find("^[%w_./:@%%+,-]*$") then return value end
  if not value:find("'", 1, true) then return "'" .. value .. "'" end
  return '"' .. value:gsub('[\\"]', "\\%0"):gsub("%$([%a_{])", "\\$%1"):gsub("[\n\r\t]", ESCAPES) .. '"'
end

-- A value as it stands; nil when no line can contain it.
local function plain_form(value)
  if value:find("[\r\n$]") or value:find("^%s") or value:find("%s$") then return nil end
  return value
end

-- Appends the lines to the file. A copy of the file is kept.
local APPEND = [[[ -n "$EXECD_ENVS" ] || exit 3
copy=$EXECD_ENVS.%s
mkdir -p "$(dirname "$EXECD_ENVS")" && touch "$EXECD_ENVS" && cp "$EXECD_ENVS" "$copy" || exit 4
if ! printf '%%s\n' %s >> "$EXECD_ENVS"; then cat "$copy" > "$EXECD_ENVS"; rm -f "$copy"; exit 4; fi]]

-- Prints the names whose value is wrong. Then the file gets the content of the copy again.
local COMPARE = [[copy=$EXECD_ENVS.%s
wrong=
%s
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin # it may be one of the variables
if [ -n "$wrong" ]; then cat "$copy" > "$EXECD_ENVS"; fi
rm -f "$copy"
echo "$wrong"]]

-- One call of set_env.
local Call = {}
Call.__index = Call

-- Runs a script. An exit code other than 0 is an error.
function Call:run(script)
  local result, err = self.client:run_command(self.execd, script, { timeout = self.limit:remaining() })
  if not result then return nil, err end
  if result.exit_code == 0 then return result end
  local fields = { kind = "state", op = self.op, sandbox_id = self.execd.sandbox_id, result = result }
  if result.timed_out then
    return nil, self.limit:error(self.op)
  elseif result.exit_code == 3 then
    fields.code, fields.message = "unsupported", "this sandbox has no file of variables: $EXECD_ENVS is not set in it"
    fields.hint = "Pass the variables to create, or to each command: option 'env'"
  else
    fields.code = "env_failed"
    fields.message = "the variables could not be written: " .. reason(result.stderr)
  end
  return nil, errors.new(fields)
end

-- Writes the variables in one form. Returns the names that execd has read differently.
function Call:try(form)
  local lines, tests = {}, {}
  for i, name in ipairs(self.names) do
    local value = self.values[name]
    local written = form(value)
    if not written then return { name } end
    lines[i] = helper_commands.quoted(name .. "=" .. written)
    tests[i] = ('[ "${%s-}" = %s ] || wrong="$wrong %s"'):format(name, helper_commands.quoted(value), name)
  end
  local id = random.hex(8)
  local result, err = self:run(APPEND:format(id, table.concat(lines, " ")))
  if not result then return nil, err end
  result, err = self:run(COMPARE:format(id, table.concat(tests, "\n")))
  if not result then return nil, err end
  local wrong = {}
  for name in result.stdout:gmatch("%S+") do wrong[#wrong + 1] = name end
  return wrong
end

local function check(op, given)
  options.argument(op, "the variables", given, "table")
  given = options.argument(op, "the variables", given, "environment")
  local names, size = {}, 0
  for name, value in each(given) do
    if not name:find("^[%a_][%w_]*$") then
      options.raise(op, ("the name of a variable must have only letters, digits and _, not %q"):format(name))
    end
    names[#names + 1], size = name, size + #name + #value
  end
  if #names == 0 then options.raise(op, "the table of variables must not be empty") end
  if size > MAX_SIZE then options.raise(op, ("the variables must have %d KiB together at most"):format(MAX_SIZE / 1024)) end
  table.sort(names)
  return given, names
end

--- Sets variables for all later commands of the sandbox, in any process, by two or four commands that append to the file of
--- `$EXECD_ENVS` in it. An option `env` of a command takes precedence. Shell sessions see the variables from execd 1.1.1 on. A value that this
--- execd cannot carry is an error of kind `state` with the code `unsupported`; then nothing has changed.
--- ```lua
--- assert(sandbox:set_env { STAGE = "two", TOKEN = secret })
--- print(assert(sandbox:run('echo "$STAGE"')).stdout) --> two
--- ```
---@param self opensandbox.Sandbox
---@param given table<string, string> values by name: letters, digits and `_`
---@param opts? { timeout?: opensandbox.Duration } seconds for all commands, default: the client's timeout
---@return true? ok
---@return opensandbox.Error? err
function variables.set(self, given, opts)
  local op = "sandbox:set_env"
  local values, names = check(op, given)
  local limit = deadline.new(options.timeout(op, opts) or self.client.http.timeouts.timeout)
  local client = self.client:for_op(op):within(limit)
  local execd, err = self:execd_endpoint(op, limit)
  if not execd then return nil, err end
  local call = setmetatable({ op = op, client = client, execd = execd, limit = limit, values = values, names = names }, Call)
  local wrong
  local has_quotes = capabilities.get(client, execd, FEATURE) ~= false
  for _, form in ipairs(has_quotes and { quoted_form, plain_form } or { plain_form }) do
    wrong, err = call:try(form)
    if not wrong then return nil, err end
    if #wrong == 0 and form == plain_form then capabilities.set(client, execd, FEATURE, false) end
    if #wrong == 0 then return true end
  end
  return nil, errors.new { kind = "state", code = "unsupported", op = op, sandbox_id = self.id,
    message = "this execd reads another value than was written for " .. table.concat(wrong, ", "),
    hint = "An execd before 1.1.1 carries no line breaks, no $ and no spaces at the ends of a value: use option 'env' of commands" }
end

return variables
