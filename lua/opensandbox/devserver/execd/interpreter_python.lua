--- The program that a context for Python runs. It reads code as lines of JSON, and writes messages about results and errors.
--
-- Results and errors look like those of IPython's kernel, as far as clients use them. Output goes through ordinary pipes, so the output
-- of child processes is included.

return [==[
import ast, base64, builtins, inspect, json, linecache, os, signal, sys, threading, traceback, types

requests, replies = os.fdopen(3, "rb"), os.fdopen(4, "wb", buffering=0)
for descriptor in (3, 4):
    os.set_inheritable(descriptor, False)
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="utf-8", errors="backslashreplace")

main = types.ModuleType("__main__")
main.__dict__["__builtins__"] = builtins
sys.modules["__main__"] = main
sys.argv = [""]
count = 0
busy = False
RED, GREEN, PLAIN = "\x1b[0;31m", "\x1b[0;32m", "\x1b[0m"


def interrupted(number, frame):
    if busy:
        raise KeyboardInterrupt


def send(word, value=None):
    text = word
    if value is not None:
        text += " " + json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    replies.write(text.encode("utf-8", "replace") + b"\n")


def flush():
    for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
        try:
            stream.flush()
        except Exception:
            pass


def flush_now_and_then():
    while True:
        pause.wait(0.1)
        if busy:
            flush()


class StdinNotImplementedError(NotImplementedError):
    pass


def no_input(prompt="", *ignored):
    raise StdinNotImplementedError("raw_input was called, but this frontend does not support input requests.")


builtins.input = no_input
# What display() shows is not part of the stream of the real service either.
main.display = lambda *objects, **options: None

FORMATS = {
    "_repr_html_": "text/html", "_repr_markdown_": "text/markdown", "_repr_svg_": "image/svg+xml", "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg", "_repr_latex_": "text/latex", "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript", "_repr_pdf_": "application/pdf",
}


def plain(value):
    kind = type(value)
    if kind.__repr__ is object.__repr__:
        return "<%s.%s at 0x%x>" % (kind.__module__, kind.__qualname__, id(value))
    return repr(value)


def encode(data):
    if isinstance(data, tuple):
        data = data[0]
    if isinstance(data, (bytes, bytearray)):
        data = base64.b64encode(data).decode("ascii")
    json.dumps(data, allow_nan=False)
    return data


def describe(value):
    found = {}
    if not isinstance(value, type):
        try:
            bundle = value._repr_mimebundle_(include=None, exclude=None)
            for name, data in (bundle[0] if isinstance(bundle, tuple) else bundle).items():
                found[name] = encode(data)
        except Exception:
            pass
        for method, name in FORMATS.items():
            try:
                data = getattr(value, method)()
                if data is not None:
                    found[name] = encode(data)
            except Exception:
                pass
    text = found.pop("text/plain", None)
    found["text"] = plain(value) if text is None else text
    return found


def trace(error, name):
    kind = type(error)
    value = str(error)
    if isinstance(error, SyntaxError):
        return ["".join(traceback.format_exception_only(kind, error))]
    title = "Traceback (most recent call last)".rjust(75 - len(kind.__name__))
    lines = [RED + "-" * 75 + PLAIN, RED + kind.__name__ + PLAIN + title]
    place = error.__traceback__
    while place and place.tb_frame.f_code.co_filename != name:
        place = place.tb_next
    for entry in traceback.extract_tb(place):
        if entry.filename.startswith("<cell "):
            where = "Cell %sIn [%s], line %d%s" % (GREEN, entry.filename[6:-1], entry.lineno, PLAIN)
        else:
            where = "File %s%s:%d%s, in %s" % (GREEN, entry.filename, entry.lineno, PLAIN, entry.name)
        lines.append("%s\n%s----> %d%s %s\n" % (where, GREEN, entry.lineno, PLAIN, entry.line or ""))
    lines.append(RED + kind.__name__ + PLAIN + ": " + value)
    return lines


def evaluate(node, name, mode):
    code = compile(node, name, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    value = eval(code, main.__dict__)
    if code.co_flags & inspect.CO_COROUTINE:
        import asyncio
        if not hasattr(evaluate, "loop"):
            evaluate.loop = asyncio.new_event_loop()
        value = evaluate.loop.run_until_complete(value)
    return value


def run(source, name):
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    if tree.body:
        evaluate(tree, name, "exec")
    if last is None:
        return
    value = evaluate(last, name, "eval")
    if value is None or source.rstrip().endswith(";"):
        return
    main._ = value
    found = describe(value)
    flush()
    send("count", count)
    send("result", found)


def fail(error, name):
    flush()
    try:
        value = str(error)
        lines = trace(error, name)
    except Exception:
        value, lines = "<the error cannot be shown>", []
    send("error", {"ename": type(error).__name__, "evalue": value, "traceback": lines})


pause = threading.Event()
threading.Thread(target=flush_now_and_then, daemon=True).start()
signal.signal(signal.SIGINT, interrupted)
send("ready")
for line in requests:
    source = json.loads(line.decode("utf-8", "replace"))
    count += 1
    name = "<cell %d>" % count
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    signal.signal(signal.SIGINT, interrupted)
    try:
        busy = True
        run(source, name)
        busy = False
    except BaseException as error:
        busy = False
        fail(error, name)
    flush()
    send("done", 0)
]==]
