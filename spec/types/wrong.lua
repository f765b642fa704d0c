-- Each line that ends in a comment holds the mistake that the comment names, and no other line has one.
local opensandbox = require "opensandbox"

local client = opensandbox.new()
client:create { imagee = "python:3.12" } -- imagee
client:creat { image = "python:3.12" } -- creat
client:pool { image = "python:3.12", min_idel = 4 } -- min_idel
client:list_sandboxes { state = { "Running" } } -- state
opensandbox.spwan(print) -- spwan

local sandbox = assert(client:create { image = "python:3.12", timeout = "10m" })
sandbox:run("make", { timeuot = 3 }) -- timeuot
sandbox:run("make", { timeout = true }) -- boolean
sandbox:rnu() -- rnu
sandbox:wait_for_prot(80) -- wait_for_prot
sandbox.files:wirte("/work/a", "b") -- wirte
sandbox.files:upload_dir(".", "/work", { gitignored = true }) -- gitignored
sandbox:renew({}) -- renew
print(assert(sandbox:run("make")).exitcode) -- exitcode
print(assert(sandbox:info()).stat) -- stat
