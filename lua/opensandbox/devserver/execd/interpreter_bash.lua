--- The program that a context for bash runs. It reads code that ends with a zero byte, and writes the exit status.
--
-- An interrupt ends the code with 130. In a function of the code, it ends the function only.

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
