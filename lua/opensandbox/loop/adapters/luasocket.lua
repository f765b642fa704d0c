--- The adapter for programs that call socket.select(). Such a program watches the client, `socket.select({ client }, nil,
--- client:timeout())`, then calls `client:step(0)`. Everything else is as in the standalone adapter.

return { name = "socket" }
