--- Lists that the server gives in pages.

local url = require "opensandbox.base.url"

local pages = {}

local MOST_PAGES = 10000
local LARGEST_PAGE = 200 -- the server refuses more

--- All items of a list, of every page unless one was asked for. `query` holds the other parameters, `decode` makes an item of an
--- object of the answer.
---@param client opensandbox.Client
---@param request table op and path
---@param query table[] as for url.query
---@param filter table page, page_size
---@param decode fun(object: any): table? each with an `id`
---@return table[]? list
---@return opensandbox.Error? err
function pages.all(client, request, query, filter, decode)
  local function items_of(answer)
    if type(answer.items) ~= "table" then return nil, "list" end
    local items = {}
    for i, object in ipairs(answer.items) do
      items[i] = decode(object)
      if not items[i] then return nil, "list of what was asked for" end
    end
    local pagination = type(answer.pagination) == "table" and answer.pagination or {}
    return { items = items, more = pagination.hasNextPage == true and #items > 0 }
  end
  local list, seen = {}, {}
  local page, page_size = filter.page, filter.page_size
  for _ = 1, MOST_PAGES do
    local parameters = { { "page", page }, { "pageSize", page_size } }
    for i, parameter in ipairs(query) do table.insert(parameters, i, parameter) end
    local path = request.path .. url.query(parameters)
    local answer, err = client.http:call { op = request.op, method = "GET", path = path, decode = items_of }
    if not answer then return nil, err end
    for _, item in ipairs(answer.items) do
      -- The server lists anew for every page: one that appears meanwhile pushes another onto two pages.
      if not seen[item.id] then
        seen[item.id] = true
        list[#list + 1] = item
      end
    end
    if filter.page or not answer.more then break end
    if page_size then
      page = (page or 1) + 1
    else
      page, page_size = 1, LARGEST_PAGE -- many: from here on in large pages
    end
  end
  return list
end

return pages
