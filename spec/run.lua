-- busted, on the Lua that runs this file: busted's own script starts whichever Lua it was installed for.

-- A sanitizer's runtime is for Lua and our core, not for every program that a test starts; process.lua gives it to Lua children.
if os.getenv("LD_PRELOAD") then require("luv").os_unsetenv("LD_PRELOAD") end

require "busted.runner"({ standalone = false })
