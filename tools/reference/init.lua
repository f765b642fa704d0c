--- The reference: made from the annotations of the library's files, for people (doc/reference) and for Vim (doc/opensandbox.txt).

local completeness = require "tools.reference.completeness"
local markdown = require "tools.reference.markdown"
local model = require "tools.reference.model"
local pages = require "tools.reference.pages"
local vimdoc = require "tools.reference.vimdoc"

local reference = {}

--- Makes the reference.
---@param texts table<string, string> the files of the library, by path
---@return table<string, string> files of doc/, by path
---@return string[] problems the missing parts of the annotations
---@return reference.Model model
---@return reference.Page[] pages
function reference.make(texts)
  local self = model.new(texts)
  local list, place = pages.of(self)
  local files = markdown.files(self, list, place)
  files["doc/opensandbox.txt"] = vimdoc.text(self, list)
  return files, completeness.problems(self, list), self, list
end

return reference
