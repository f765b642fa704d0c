--- The reference of the library, made anew, for the specs about documents.

local sources = require "spec.support.sources"
local tool = require "tools.reference.init"

local reference = {}

--- Returns the files that the reference is made of.
---@return table<string, string> texts by path
function reference.texts()
  local texts = {}
  for path, text in pairs(sources.read("lua")) do
    -- The programs document themselves: --help, and doc/program.md.
    if not path:find("^lua/opensandbox/devserver/") and not path:find("^lua/opensandbox/cli/") then texts[path] = text end
  end
  return texts
end

--- Makes the reference.
---@param texts? table<string, string> other files than the library's
---@return table made files, problems, model, pages
function reference.make(texts)
  local files, problems, model, pages = tool.make(texts or reference.texts())
  return { files = files, problems = problems, model = model, pages = pages }
end

return reference
