std = "min"
read_globals = { math = { fields = { "tointeger", "type" } } } -- where there are integers
max_line_length = 132
max_comment_line_length = false -- annotations stand on one line each
files["spec"].std = "min+busted"
files["spec/types"] = { ignore = { "211", "212", "431" } } -- programs that only the checker of types reads
files["types"] = { ignore = { "211", "212", "241" } } -- stubs
files[".luacheckrc"].std = "luacheckrc"
exclude_files = { "build/**" }
self = false -- a method need not use its object
