--- luasocket: a program that calls socket.select() itself watches the client, `socket.select({ client }, nil, client:timeout())`, then
--- calls `client:step(0)`. Tasks are our own coroutines, and all is as in plain Lua.

return { name = "socket" }
