--- The program that a context for bash, and an isolated session, runs: code comes in with a zero byte behind it, the exit
-- status goes out.
--
-- An interrupt ends the code with 130. In a function of the code it ends the function; what follows its call goes on.

return [==[
exec 251<&3 3<&- 252>&4 4>&-
__run() { eval "$1"; }
trap 'return 130' INT
echo ready >&252
while IFS= read -r -d '' __code <&251; do
  __run "$__code"
  builtin printf 'done %s\n' "$?" >&252
done
]==]
