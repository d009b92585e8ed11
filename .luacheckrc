std = "lua54"
max_line_length = 120
files["spec"] = { std = "+busted" }
files["lua/meta"] = { ignore = { "211", "212" } } -- definitions for editors: nothing runs
files["spec/fixtures"] = { ignore = { "111", "112", "113", "121", "212" } } -- scripts that break rules on purpose
files["bench/peers/haproxy.lua"] = { read_globals = { "core" } }
