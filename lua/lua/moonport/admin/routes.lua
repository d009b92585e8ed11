--- The table of the control API: which file answers what.

local router = require("moonport.admin.router")

local routes = router.new()

routes:add("GET", "/", "this list", function()
  local list = {}
  for _, route in ipairs(routes.routes) do
    list[#list + 1] = { method = route.method, path = route.path, about = route.about }
  end
  return { routes = list }
end)

require("moonport.admin.host")(routes)
require("moonport.admin.servers")(routes)
require("moonport.admin.stubs")(routes)
require("moonport.admin.toxics")(routes)
require("moonport.admin.journal")(routes)
require("moonport.admin.verify")(routes)
require("moonport.admin.connections")(routes)

return routes
