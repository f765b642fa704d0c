--- `pairs` under another name, for every loop of the library over the keys of a table.
--
-- LuaJIT recognizes `pairs` and `next` by their names, and compiles a loop over them in a way of its own. In the LuaJIT of Debian 12, and in
-- others from 2021 to 2022, such a compiled loop never ends if a finalizer runs it with a table of another kind than those before: a
-- compiled loop that does not fit is left at its first instruction, which enters it again, and in a finalizer no other code is compiled
-- for it. Finalizers delete sandboxes, and can reach nearly all code of the library.

return pairs
