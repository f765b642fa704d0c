--- Lists that the server returns in pages.

local deadline = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local fields = require "opensandbox.base.fields"
local url = require "opensandbox.base.url"

local pagination = {}

--- The number of pages after which a list is an error, because a part of it would look like the whole.
pagination.MAX_PAGES = 10000

local MAX_PAGE_SIZE = 200 -- the server refuses more

--- Returns the value of the parameter that filters by metadata: one query value that is itself form-encoded.
---@param metadata? table<string, string>
---@return string? value nil for no filter
function pagination.metadata_filter(metadata)
  local parts = {}
  for name, value in each(metadata or {}) do parts[#parts + 1] = url.escape(name) .. "=" .. url.escape(value) end
  table.sort(parts)
  return #parts > 0 and table.concat(parts, "&") or nil
end

--- Returns all items of a list: of every page, or of the page that `filter` names.
---@param client opensandbox.Client
---@param request { op: string, path: string }
---@param query table[] the other parameters, as for url.query
---@param filter { page?: integer, page_size?: integer, timeout?: opensandbox.Duration } timeout in seconds, for all pages together
---@param decode fun(object: any): table? makes an item of a JSON object; every item has an `id`
---@return table[]? list
---@return opensandbox.Error? err
function pagination.all(client, request, query, filter, decode)
  local function decode_page(response)
    if not fields.list(response.items) then return nil, "list" end
    local items = {}
    for i, object in ipairs(response.items) do
      local item, missing = decode(object)
      if not item then return nil, missing or "list of the requested objects" end
      items[i] = item
    end
    local position = type(response.pagination) == "table" and response.pagination or {}
    return { items = items, has_next = position.hasNextPage == true and #items > 0 }
  end
  local list, seen, limit = {}, {}, deadline.new(filter.timeout)
  local page, page_size = filter.page, filter.page_size
  for _ = 1, pagination.MAX_PAGES do
    local parameters = { { "page", page }, { "pageSize", page_size } }
    for i, parameter in ipairs(query) do table.insert(parameters, i, parameter) end
    local path = request.path .. url.query(parameters)
    local response, err = client.http:call { op = request.op, method = "GET", path = path, timeout = limit:remaining(),
      decode = decode_page }
    if not response then return nil, limit:has_passed() and limit:error(request.op, err) or err end
    for _, item in ipairs(response.items) do
      -- The server makes a new list for every page. An object that is created meanwhile moves another one to the next page.
      if not seen[item.id] then
        seen[item.id] = true
        list[#list + 1] = item
      end
    end
    if filter.page or not response.has_next then return list end
    if page_size then
      page = (page or 1) + 1
    else
      page, page_size = 1, MAX_PAGE_SIZE -- the default page was not enough, so the list starts again with large pages
    end
  end
  return nil, errors.new { kind = "protocol", code = "unexpected_response", op = request.op,
    message = ("the list did not end after %d pages"):format(pagination.MAX_PAGES),
    hint = page_size and page_size < MAX_PAGE_SIZE and "Use a larger page_size, or a filter" or "Use a filter" }
end

return pagination
