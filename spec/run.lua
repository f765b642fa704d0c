-- busted, on the Lua that runs this file: busted's own script starts whichever Lua it was installed for.
require "busted.runner"({ standalone = false })
