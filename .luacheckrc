std = "min"
read_globals = { math = { fields = { "tointeger", "type" } } } -- where there are integers
max_line_length = 132
max_comment_line_length = false -- annotations stand on one line each
files["spec"].std = "min+busted"
files[".luacheckrc"].std = "luacheckrc"
exclude_files = { "build/**" }
self = false -- a method need not use its object
