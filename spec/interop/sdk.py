"""Drives the server of OPEN_SANDBOX_DOMAIN through the official Python SDK, step by step.

Prints "ok NAME", "skip NAME: what this version of the SDK does not have" or "FAIL NAME: why" for each step.
"""

import asyncio
import inspect
import logging
import os
import socket
import sys
import traceback
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone

import httpx
from opensandbox import Sandbox, SandboxManager, SandboxSync
from opensandbox.config import ConnectionConfig
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.execd import ExecutionHandlers, RunCommandOpts
from opensandbox.models.filesystem import (
    ContentReplaceEntry, DirectoryListEntry, MoveEntry, SearchEntry, SetPermissionEntry, WriteEntry,
)
from opensandbox.models.sandboxes import (
    Credential, CredentialBinding, CredentialProxyConfig, NetworkPolicy, NetworkRule, SandboxFilter, SnapshotFilter,
)
from opensandbox.pool import InMemoryAsyncPoolStateStore, PoolCreationSpec, SandboxPoolAsync
from opensandbox.services.command import Commands
from opensandbox.services.filesystem import Filesystem

try:
    import code_interpreter
except ImportError:
    code_interpreter = None
try:
    from opensandbox.models import isolated
except ImportError:
    isolated = None
try:
    from opensandbox.models import templates
except ImportError:
    templates = None

RUN = f"{datetime.now().timestamp():.0f}"  # in the metadata of every sandbox made here
STEP_TIMEOUT = 30

logging.disable(logging.CRITICAL)  # the SDK logs what it raises
steps = []


def step(name, lacks=None):
    """Makes a step of a function; `lacks` names what the SDK does not have for it."""
    def add(function):
        steps.append((name, function, lacks))
        return function
    return add


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, not {wanted!r}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


@asynccontextmanager
async def fails(status):
    """The block raises the SDK's error of an answer with this status."""
    try:
        yield
    except SandboxApiException as error:
        equal(error.status_code, status)
        return
    raise AssertionError(f"no error of status {status}")


@asynccontextmanager
async def sandbox(**options):
    metadata = {"run": RUN, **options.pop("metadata", {})}
    made = await Sandbox.create(options.pop("image", "python:3.12"), metadata=metadata, **options)
    try:
        yield made
    finally:
        await end(made)


async def end(made):
    """Kills a sandbox, which may be dead already, and closes what the SDK holds for it."""
    try:
        await made.kill()
    except SandboxApiException as error:
        equal(error.status_code, 404)
    finally:
        await made.close()


def lines(messages):
    return [message.text.rstrip("\n") for message in messages]


async def until(condition, what):
    for _ in range(100):
        value = await condition()
        if value:
            return value
        await asyncio.sleep(0.1)
    raise AssertionError(f"no {what} within 10 seconds")


# Commands


@step("create")
async def create(box):
    info = await box.get_info()
    equal(info.id, box.id)
    equal(info.status.state, "Running")
    equal(info.image.image, "python:3.12")
    equal(info.entrypoint, ["tail", "-f", "/dev/null"])
    equal(info.metadata["run"], RUN)
    check(500 < (info.expires_at - info.created_at).total_seconds() <= 601, "it expires in ten minutes")
    check(await box.is_healthy(), "it is healthy")


@step("run")
async def run(box):
    result = await box.commands.run("echo one; echo two >&2; echo; echo -n three")
    equal(result.exit_code, 0)
    equal(lines(result.logs.stdout), ["one", "", "three"])
    equal(lines(result.logs.stderr), ["two"])
    check(result.id and result.complete and result.error is None, "it has an id and ended well")
    result = await box.commands.run("echo out; exit 3")
    equal((result.exit_code, result.error.name, result.error.value), (3, "CommandExecError", "3"))
    equal(lines(result.logs.stdout), ["out"])


@step("run: cwd, env, user")
async def run_options(box):
    result = await box.commands.run("echo ${PWD##*/}; echo $COLOUR $NAME; id -u", opts=RunCommandOpts(
        working_directory="/tmp", envs={"COLOUR": "blue"}, uid=os.getuid(), gid=os.getgid()))
    said = lines(result.logs.stdout)
    equal(said[:2], ["tmp", "blue of the sandbox"])
    check(said[2] in ("0", str(os.getuid())), "it runs as who it was told to, or as who that is inside")


@step("run: timeout")
async def run_timeout(box):
    began = datetime.now()
    result = await box.commands.run("echo early; sleep 20; echo late", opts=RunCommandOpts(timeout=timedelta(seconds=1)))
    check(datetime.now() - began < timedelta(seconds=10), "it does not wait for the command")
    equal(lines(result.logs.stdout), ["early"])
    check(result.error is not None and result.exit_code != 0, "it is not a success")


@step("run: argv", lacks="list" not in str(inspect.signature(Commands.run)) and "lists of arguments")
async def run_argv(box):
    result = await box.commands.run(["printf", "%s|", "a b", "$HOME", "*"])
    equal(lines(result.logs.stdout), ["a b|$HOME|*|"])
    equal((await box.commands.run(["false"])).exit_code, 1)


@step("run: set_env", lacks=not hasattr(Commands, "set_env") and "set_env")
async def set_env(box):
    await box.commands.set_env("KEPT", "a 'quoted' value")
    await box.commands.set_env("PLAIN", "$HOME")
    result = await box.commands.run('echo "$KEPT"; echo "$PLAIN"')
    equal(lines(result.logs.stdout), ["a 'quoted' value", "$HOME"])


@step("stream")
async def stream(box):
    seen = []

    async def on_stdout(message):
        seen.append(("stdout", message.text.rstrip("\n")))
        if len(seen) == 2:  # the command goes on when it has been heard
            await box.files.write_file("/tmp/heard", "yes")

    async def note(kind, text):
        seen.append((kind, text))

    handlers = ExecutionHandlers(
        on_init=lambda event: note("init", event.id), on_stdout=on_stdout,
        on_stderr=lambda event: note("stderr", event.text.rstrip("\n")),
        on_execution_complete=lambda event: note("complete", event.execution_time_in_millis >= 0))
    result = await box.commands.run(
        "echo first; until [ -e tmp/heard ]; do sleep 0.05; done; echo second; sleep 0.3; echo third >&2",
        opts=RunCommandOpts(timeout=timedelta(seconds=8)), handlers=handlers)
    equal(result.exit_code, 0)
    equal(seen, [("init", result.id), ("stdout", "first"), ("stdout", "second"), ("stderr", "third"), ("complete", True)])


@step("background")
async def background(box):
    started = await box.commands.run("echo one; until [ -e tmp/go ]; do sleep 0.05; done; echo two; exit 4",
                                     opts=RunCommandOpts(background=True))
    status = await box.commands.get_command_status(started.id)
    equal((status.id, status.running, status.exit_code), (started.id, True, None))

    async def first():
        logs = await box.commands.get_background_command_logs(started.id, cursor=0)
        return logs.content and logs
    logs = await until(first, "output")
    equal((logs.content, logs.cursor), ("one\n", 4))
    await box.files.write_file("/tmp/go", "")

    async def ended():
        status = await box.commands.get_command_status(started.id)
        return not status.running and status
    status = await until(ended, "end")
    equal(status.exit_code, 4)
    check(status.started_at <= status.finished_at, "it ended after it began")
    logs = await box.commands.get_background_command_logs(started.id, cursor=logs.cursor)
    equal((logs.content, logs.cursor), ("two\n", 8))


@step("interrupt")
async def interrupt(box):
    started = await box.commands.run("sleep 60", opts=RunCommandOpts(background=True))
    await box.commands.interrupt(started.id)

    async def ended():
        status = await box.commands.get_command_status(started.id)
        return not status.running and status
    check((await until(ended, "end")).exit_code != 0, "it was not a success")
    async with fails(404):
        await box.commands.get_command_status("nothing")


# Files


@step("files: write, read")
async def files(box):
    await box.files.write_files([
        WriteEntry(path="/data/text", data="äöü\nsecond line\n", mode=640),
        WriteEntry(path="/data/deep/er/bytes", data=bytes(range(256))),
    ])
    equal(await box.files.read_file("/data/text"), "äöü\nsecond line\n")
    equal(await box.files.read_bytes("/data/deep/er/bytes"), bytes(range(256)))
    equal(await box.files.read_bytes("/data/deep/er/bytes", range_header="bytes=65-69"), b"ABCDE")
    equal(await box.files.read_bytes("/data/deep/er/bytes", range_header="bytes=-2"), b"\xfe\xff")
    with open(__file__, "rb") as file:
        await box.files.write_file("/data/streamed", file)
    with open(__file__, "rb") as file:
        equal(await box.files.read_bytes("/data/streamed"), file.read())
    async with fails(404):
        await box.files.read_file("/data/nothing")


@step("files: lines", lacks="offset" not in inspect.signature(Filesystem.read_file).parameters and "reading by lines")
async def file_lines(box):
    await box.files.write_file("/data/lines", "1\n2\n3\n4\n5\n")
    equal(await box.files.read_file("/data/lines", offset=2, limit=2), "2\n3")  # execd drops the last newline
    equal(await box.files.read_file("/data/lines", offset=5), "5")


@step("files: read a stream")
async def file_stream(box):
    data = bytes(range(256)) * 4096
    await box.files.write_file("/data/large", data)
    chunks = [chunk async for chunk in await box.files.read_bytes_stream("/data/large", chunk_size=65536)]
    check(len(chunks) > 1, "it comes in parts")
    equal(b"".join(chunks), data)


@step("files: info, chmod")
async def file_info(box):
    await box.files.write_file("/data/mode", "12345", mode=600)
    info = (await box.files.get_file_info(["/data/mode"]))["/data/mode"]
    equal((info.path, info.mode, info.size), ("/data/mode", 600, 5))
    check(abs((info.modified_at - datetime.now(timezone.utc)).total_seconds()) < 60, "it was modified just now")
    await box.files.set_permissions([SetPermissionEntry(path="/data/mode", mode=755)])
    equal((await box.files.get_file_info(["/data/mode"]))["/data/mode"].mode, 755)
    async with fails(404):
        await box.files.get_file_info(["/data/nothing"])


@step("files: search, list")
async def file_search(box):
    await box.files.write_files([WriteEntry(path=f"/tree/{name}", data=name) for name in ("a.txt", "b.md", "sub/c.txt")])
    found = await box.files.search(SearchEntry(path="/tree", pattern="**/*.txt"))
    equal(sorted((entry.path, entry.size) for entry in found), [("/tree/a.txt", 5), ("/tree/sub/c.txt", 9)])
    listed = await box.files.list_directory(DirectoryListEntry(path="/tree"))
    equal(sorted((entry.path, entry.entry_type) for entry in listed),
          [("/tree/a.txt", "file"), ("/tree/b.md", "file"), ("/tree/sub", "directory")])
    listed = await box.files.list_directory(DirectoryListEntry(path="/tree", depth=2))
    equal(len(listed), 4)


@step("files: move")
async def file_move(box):
    await box.files.write_file("/data/from", "moved")
    await box.files.move_files([MoveEntry(src="/data/from", dest="/data/to")])
    equal(await box.files.read_file("/data/to"), "moved")
    async with fails(404):
        await box.files.get_file_info(["/data/from"])


@step("files: replace")
async def file_replace(box):
    await box.files.write_file("/data/replace", "one two one")
    entry = ContentReplaceEntry(path="/data/replace", old_content="one", new_content="1")
    await box.files.replace_contents([entry])
    equal(await box.files.read_file("/data/replace"), "1 two 1")
    entry = ContentReplaceEntry(path="/data/replace", old_content="1", new_content="eins")
    absent = ContentReplaceEntry(path="/data/text", old_content="not there", new_content="")
    results = await box.files.replace_contents_detailed([entry, absent])
    equal({result.path: result.replaced_count for result in results}, {"/data/replace": 2, "/data/text": 0})


@step("files: directories, delete")
async def file_directories(box):
    await box.files.create_directories([WriteEntry(path="/made/by/hand", mode=700)])
    info = (await box.files.get_file_info(["/made/by/hand"]))["/made/by/hand"]
    equal((info.mode, info.entry_type), (700, "directory"))
    await box.files.write_file("/made/by/file", "x")
    await box.files.delete_files(["/made/by/file"])
    async with fails(404):
        await box.files.read_file("/made/by/file")
    await box.files.delete_directories(["/made"])
    async with fails(404):
        await box.files.get_file_info(["/made/by/hand"])


@step("files: as a user", lacks=not hasattr(Sandbox, "files_with_identity") and "files_with_identity")
async def file_identity(box):
    files = box.files_with_identity(os.getuid(), os.getgid())
    await files.write_file("/data/mine", "of the user")
    equal(await files.read_file("/data/mine"), "of the user")
    equal(await box.files.read_file("/data/mine"), "of the user")
    async with fails(501):
        await box.files_with_identity(54321, 54321).read_file("/data/mine")


# Lifecycle


@step("list")
async def listing(box):
    async with sandbox(metadata={"list": "one"}) as one, sandbox(metadata={"list": "two", "example.com/team": "red"}) as two:
        async with await SandboxManager.create() as manager:
            async def ids(**filter):
                page = await manager.list_sandbox_infos(SandboxFilter(**filter))
                return [info.id for info in page.sandbox_infos], page.pagination
            found, pagination = await ids(metadata={"list": "one"})
            equal((found, pagination.total_items), ([one.id], 1))
            equal((await ids(metadata={"example.com/team": "red", "list": "two"}))[0], [two.id])
            equal((await ids(metadata={"list": "three"}))[0], [])
            equal((await ids(states=["Paused"], metadata={"run": RUN}))[0], [])
            first, pagination = await ids(states=["Running", "Paused"], metadata={"run": RUN}, page=1, page_size=2)
            equal((pagination.page, pagination.page_size, pagination.total_items, pagination.total_pages,
                   pagination.has_next_page), (1, 2, 3, 2, True))
            second, pagination = await ids(metadata={"run": RUN}, page=2, page_size=2)
            check(not pagination.has_next_page, "the second page is the last")
            equal(set(first + second), {box.id, one.id, two.id})
            equal((await manager.get_sandbox_info(one.id)).metadata["list"], "one")
            await manager.kill_sandbox(one.id)
            equal((await ids(metadata={"list": "one"}))[0], [])


@step("templates", lacks=not templates and "templates")
async def template(box):
    async with await SandboxManager.create() as manager:
        made = await manager.create_template(templates.CreateTemplateRequest(
            image="python:3.12", publish="s3://bucket/path", env={"COLOUR": "blue"}, metadata={"run": RUN}))
        equal(made.status.phase, "Pending")

        async def built():
            found = await manager.get_template(made.template_id)
            return found.status.phase == "Succeeded" and found
        found = await until(built, "template")
        equal((found.image, found.publish, found.env), ("python:3.12", "s3://bucket/path", {"COLOUR": "blue"}))
        page = await manager.list_templates(templates.TemplateFilter(metadata={"run": RUN}))
        equal([info.template_id for info in page.template_infos], [made.template_id])
        fast = await Sandbox.create_from_template(made.template_id, timeout=timedelta(minutes=5), metadata={"run": RUN})
        try:
            equal(fast.origin, "template")
            equal(lines((await fast.commands.run("echo $COLOUR")).logs.stdout), ["blue"])
            equal((await fast.get_egress_policy()).egress, [])
            await fast.patch_egress_rules([NetworkRule(action="allow", target="index.example")])
            equal([rule.target for rule in (await fast.get_egress_policy()).egress], ["index.example"])
            await fast.delete_egress_rules(["index.example"])
            equal((await fast.get_egress_policy()).egress, [])
            await manager.delete_template(made.template_id)
            equal((await fast.get_info()).status.state, "Running")
        finally:
            await end(fast)
        async with fails(404):
            await manager.get_template(made.template_id)


@step("metadata")
async def metadata(box):
    info = await box.patch_metadata({"stage": "one", "colour": "red"})
    equal((info.metadata["stage"], info.metadata["colour"]), ("one", "red"))
    await box.patch_metadata({"stage": "two", "colour": None})
    info = await box.get_info()
    equal((info.metadata["stage"], "colour" in info.metadata, info.metadata["run"]), ("two", False, RUN))
    async with fails(400):
        await box.patch_metadata({"opensandbox.io/own": "no"})


@step("endpoint")
async def endpoint(box):
    served = await box.get_endpoint(44772)
    check(served.endpoint and "://" not in served.endpoint, "it has no scheme")
    check((await box.get_endpoint(18080)).endpoint, "the egress port has one")
    async with fails(400):
        await box.get_endpoint(0)


@step("endpoint: another port")
async def endpoint_port(box):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    await box.files.write_file("/www/index.html", "served from the sandbox")
    server = await box.commands.run(f"exec python3 -m http.server {port}", opts=RunCommandOpts(
        working_directory="/www", background=True))
    served = await box.get_endpoint(port)

    async def answer():
        try:
            async with httpx.AsyncClient() as client:
                response = await client.get(f"http://{served.endpoint}/index.html", headers=served.headers)
            return response.status_code == 200 and response.text
        except httpx.TransportError:
            return None
    try:
        equal(await until(answer, "answer"), "served from the sandbox")
    finally:
        await box.commands.interrupt(server.id)


@step("metrics")
async def metrics(box):
    got = await box.get_metrics()
    check(got.cpu_count >= 1 and got.memory_total_in_mib > got.memory_used_in_mib > 0, f"they make sense: {got}")
    check(abs(got.timestamp / 1000 - datetime.now().timestamp()) < 60, "they are of now")


@step("renew")
async def renew(box):
    wanted = datetime.now(timezone.utc) + timedelta(minutes=30)
    renewed = await box.renew(timedelta(minutes=30))
    check(abs((renewed.expires_at - wanted).total_seconds()) < 10, "it expires half an hour from now")
    equal((await box.get_info()).expires_at, renewed.expires_at)
    async with sandbox(timeout=None) as forever:
        equal((await forever.get_info()).expires_at, None)
        async with fails(409):
            await forever.renew(timedelta(minutes=1))


@step("pause, resume")
async def pause(box):
    async with sandbox() as paused:
        await paused.files.write_file("/tmp/kept", "here")
        await paused.pause()
        equal((await paused.get_info()).status.state, "Paused")
        resumed = await Sandbox.resume(paused.id)
        try:
            equal((await resumed.get_info()).status.state, "Running")
            equal(await resumed.files.read_file("/tmp/kept"), "here")
        finally:
            await resumed.close()


@step("snapshots")
async def snapshots(box):
    await box.files.write_file("/state", "of the first")
    made = await box.create_snapshot("first")
    async with await SandboxManager.create() as manager:
        try:
            equal((made.sandbox_id, made.name), (box.id, "first"))

            async def ready():
                return (await manager.get_snapshot(made.id)).status.state == "Ready"
            await until(ready, "snapshot")
            page = await manager.list_snapshots(SnapshotFilter(sandbox_id=box.id))
            equal([snapshot.id for snapshot in page.snapshot_infos], [made.id])
            restored = await Sandbox.create(snapshot_id=made.id, metadata={"run": RUN})
            try:
                equal(await restored.files.read_file("/state"), "of the first")
                info = await restored.get_info()
                equal((info.snapshot_id, info.image), (made.id, None))
            finally:
                await end(restored)
        finally:
            await manager.delete_snapshot(made.id)
        async with fails(404):
            await manager.get_snapshot(made.id)


@step("connect")
async def connect(box):
    await box.files.write_file("/tmp/shared", "by two")
    other = await Sandbox.connect(box.id)
    try:
        equal(await other.files.read_file("/tmp/shared"), "by two")
    finally:
        await other.close()


@step("errors")
async def errors(box):
    unknown = "00000000-0000-4000-8000-000000000000"
    async with await SandboxManager.create() as manager:
        for call in (manager.get_sandbox_info, manager.kill_sandbox, manager.pause_sandbox):
            async with fails(404):
                await call(unknown)
        try:
            await manager.get_sandbox_info(unknown)
        except SandboxApiException as error:
            equal(error.error.code, "DOCKER::SANDBOX_NOT_FOUND")
            check(error.request_id, "it has the id of the request")
    async with fails(500):
        await Sandbox.create("nope:latest", metadata={"run": RUN})
    async with fails(400):
        await Sandbox.create("python:3.12", metadata={"run": RUN, "name": "not a label!"})
    async with fails(401):
        await Sandbox.create("python:3.12", connection_config=ConnectionConfig(api_key="wrong"))


@step("through the server")
async def server_proxy(box):
    other = await Sandbox.connect(box.id, connection_config=ConnectionConfig(use_server_proxy=True))
    try:
        check("/proxy/" in (await other.get_endpoint(44772)).endpoint, "the endpoint is the server's")
        equal(lines((await other.commands.run("echo proxied")).logs.stdout), ["proxied"])
        await other.files.write_file("/tmp/proxied", b"\x00\xff")
        equal(await other.files.read_bytes("/tmp/proxied"), b"\x00\xff")
    finally:
        await other.close()


@step("the synchronous client")
async def synchronous(box):
    def work():
        with SandboxSync.connect(box.id) as other:
            other.files.write_file("/tmp/sync", "from a thread")
            result = other.commands.run("cat tmp/sync; exit 2")
            return lines(result.logs.stdout), result.exit_code, other.files.read_file("/tmp/sync")
    equal(await asyncio.to_thread(work), (["from a thread"], 2, "from a thread"))


# What has servers of its own


@step("sessions")
async def sessions(box):
    session = await box.commands.create_session(working_directory="/tmp")
    result = await box.commands.run_in_session(session, "echo ${PWD##*/}; mkdir -p inner; cd inner; export COLOUR=green")
    equal((result.exit_code, lines(result.logs.stdout)), (0, ["tmp"]))
    heard = []

    async def on_stdout(message):
        heard.append(message.text.rstrip("\n"))
    result = await box.commands.run_in_session(
        session, "echo ${PWD##*/tmp/}; echo $COLOUR", handlers=ExecutionHandlers(on_stdout=on_stdout))
    equal(lines(result.logs.stdout), ["inner", "green"])
    equal(heard, ["inner", "green"])
    equal((await box.commands.run_in_session(session, "exit 7")).exit_code, 7)
    result = await box.commands.run_in_session(session, "test -d tmp && echo here", working_directory="/")
    equal(lines(result.logs.stdout), ["here"])
    await box.commands.delete_session(session)
    async with fails(500): # as execd says it of a session that it does not know
        await box.commands.run_in_session(session, "true")


@step("egress")
async def egress(box):
    policy = NetworkPolicy(default_action="deny", egress=[NetworkRule(action="allow", target="index.example")])

    def rules(policy):
        return [(rule.action, rule.target) for rule in policy.egress or []]
    async with sandbox(network_policy=policy) as guarded:
        got = await guarded.get_egress_policy()
        equal((got.default_action, rules(got)), ("deny", [("allow", "index.example")]))
        await guarded.patch_egress_rules([NetworkRule(action="allow", target="*.example.com")])
        equal(rules(await guarded.get_egress_policy()), [("allow", "*.example.com"), ("allow", "index.example")])
        await guarded.patch_egress_rules([NetworkRule(action="deny", target="index.example")])
        equal(rules(await guarded.get_egress_policy()), [("allow", "*.example.com"), ("deny", "index.example")])
        await guarded.delete_egress_rules(["index.example", "not.there"])
        got = await guarded.get_egress_policy()
        equal((got.default_action, rules(got)), ("deny", [("allow", "*.example.com")]))


@step("diagnostics", lacks=not hasattr(Sandbox, "get_diagnostic_logs") and "diagnostics")
async def diagnostics(box):
    async with sandbox(entrypoint=["sh", "-c", "echo begun; exec sleep 600"]) as talking:
        async def written():
            logs = await talking.get_diagnostic_logs("container")
            return logs.content and logs
        logs = await until(written, "log")
        equal((logs.sandbox_id, logs.kind, logs.delivery, logs.content), (talking.id, "logs", "inline", "begun\n"))
        check((await talking.get_diagnostic_events("runtime")).content, "its state")
        async with fails(400):
            await talking.get_diagnostic_logs("nothing")


@step("a pool")
async def pool(box):
    async with SandboxPoolAsync(
        pool_name="interop", max_idle=1, connection_config=ConnectionConfig(),
        state_store=InMemoryAsyncPoolStateStore(),
        creation_spec=PoolCreationSpec(image="python:3.12", metadata={"run": RUN}),
    ) as pool:
        try:
            async def warm():
                return (await pool.snapshot()).idle_count == 1
            await until(warm, "warm sandbox")
            taken = await pool.acquire(sandbox_timeout=timedelta(minutes=5))
            try:
                equal(lines((await taken.commands.run("echo pooled")).logs.stdout), ["pooled"])
                left = (await taken.get_info()).expires_at - datetime.now(timezone.utc)
                check(left < timedelta(minutes=6), "it was renewed")
            finally:
                await end(taken)
        finally:
            await pool.resize(0)
            await pool.release_all_idle()


@step("credential vault")
async def vault(box):
    policy = NetworkPolicy(default_action="deny", egress=[NetworkRule(action="allow", target="api.example.com")])
    async with sandbox(network_policy=policy, credential_proxy=CredentialProxyConfig(enabled=True)) as guarded:
        vault = guarded.credential_vault
        async with fails(404):
            await vault.get()
        state = await vault.create(
            credentials=[Credential(name="token", source={"value": "secret"})],
            bindings=[CredentialBinding(name="api", match={"hosts": ["api.example.com"]},
                                        auth={"type": "bearer", "credential": "token"})])
        equal((state.revision, [one.name for one in state.credentials], [one.name for one in state.bindings]),
              (1, ["token"], ["api"]))
        equal(state.credentials[0].source_type, "inline")
        state = await vault.patch(expected_revision=1, credentials={"add": [
            {"name": "second", "source": {"type": "inline", "value": "x"}}]})
        equal((state.revision, [one.name for one in state.credentials]), (2, ["second", "token"]))
        async with fails(409):
            await vault.patch(expected_revision=1)
        equal([one.name for one in await vault.list_credentials()], ["second", "token"])
        equal((await vault.get_credential("token")).name, "token")
        binding = (await vault.list_bindings())[0]
        equal((binding.name, binding.auth.type, binding.match.hosts), ("api", "bearer", ["api.example.com"]))
        equal((await vault.get_binding("api")).name, "api")
        async with fails(404):
            await vault.get_credential("third")
        await vault.delete()
        async with fails(404):
            await vault.get()


@step("code interpreter", lacks=not code_interpreter and "code interpreter beside it")
async def code(box):
    interpreter = await code_interpreter.CodeInterpreter.create(sandbox=box)
    try:
        codes = interpreter.codes
        context = await codes.create_context("python")
        equal(context.language, "python")
        result = await codes.run("x = 41\nprint('made')", context=context)
        equal("".join(message.text for message in result.logs.stdout).strip(), "made")
        seen = []

        async def on_result(event):
            seen.append(event.text)
        result = await codes.run("x + 1", context=context, handlers=ExecutionHandlers(on_result=on_result))
        equal(([one.text for one in result.result], seen), (["42"], ["42"]))
        result = await codes.run("1 / 0", context=context)
        equal(result.error.name, "ZeroDivisionError")
        other = await codes.create_context("python")
        equal((await codes.run("x", context=other)).error.name, "NameError")
        check({context.id, other.id} <= {one.id for one in await codes.list_contexts("python")}, "both are listed")
        equal((await codes.get_context(context.id)).id, context.id)

        async def stop(event):
            if event.text.strip() == "begun":
                await codes.interrupt(context.id)
        result = await codes.run("import time\nprint('begun', flush=True)\ntime.sleep(60)", context=context,
                                 handlers=ExecutionHandlers(on_stdout=stop))
        equal(result.error and result.error.name, "KeyboardInterrupt")
        equal([one.text for one in (await codes.run("x", context=context)).result], ["41"])
        await codes.delete_context(context.id)
        async with fails(404):
            await codes.get_context(context.id)
        await codes.delete_contexts("python")
        equal(await codes.list_contexts("python"), [])
    finally:
        if hasattr(interpreter, "aclose"):
            await interpreter.aclose()


@asynccontextmanager
async def isolated_session(box, **options):
    """A session in a sandbox that may have some."""
    async with sandbox(extensions={"bootstrap.execd.isolation": "enable"}) as host:
        request = isolated.CreateIsolatedSessionRequest(
            workspace=isolated.IsolatedWorkspaceSpec(path="/workspace", mode="rw"), **options)
        session = await host.isolation.create(request)
        yield host, session


@step("isolated sessions", lacks=not isolated and "isolated sessions")
async def isolated_sessions(box):
    async with isolated_session(box) as (host, session):
        check((await host.isolation.capabilities()).available, "they are available")
        result = await session.run("echo out; export COLOUR=red; cd /tmp")
        equal((result.exit_code, lines(result.logs.stdout)), (0, ["out"]))
        result = await session.run("pwd; echo $COLOUR")
        equal(lines(result.logs.stdout), ["/tmp", "red"])
        result = await session.run("echo $NAME; (exit 3)", opts=isolated.IsolatedRunOpts(envs={"NAME": "given"}))
        equal((result.exit_code, lines(result.logs.stdout)), (3, ["given"]))
        equal((await session.get()).status, "active")
        equal([one.session_id for one in await host.isolation.list()], [session.session_id])
        attached = await host.isolation.attach(session.session_id)
        equal(lines((await attached.run("echo $COLOUR")).logs.stdout), ["red"])
        once = await host.isolation.run_once("echo once", workspace="/workspace", workspace_mode="rw")
        equal(lines(once.logs.stdout), ["once"])
        equal(len(await host.isolation.list()), 1)
        await session.delete()
        equal(await host.isolation.list(), [])


@step("isolated sessions: files", lacks=not isolated and "isolated sessions")
async def isolated_files(box):
    async with isolated_session(box) as (host, session):
        await session.files.write_file("/workspace/dir/text", "one two one")
        equal(lines((await session.run("cat /workspace/dir/text")).logs.stdout), ["one two one"])
        equal(await session.files.read_file("/workspace/dir/text"), "one two one")
        equal([entry.path for entry in await session.files.search(SearchEntry(path="/workspace", pattern="te*"))], ["dir/text"])
        # Without counts: these SDKs ask for them here without saying verbose=true, and then miss them.
        await session.files.replace_contents([
            ContentReplaceEntry(path="/workspace/dir/text", old_content="one", new_content="1")])
        await session.files.move_files([MoveEntry(src="/workspace/dir/text", dest="/workspace/moved")])
        equal((await session.files.get_file_info(["/workspace/moved"]))["/workspace/moved"].size, 7)
        await session.files.delete_files(["/workspace/moved"])
        async with fails(404):
            await host.files.read_file("/workspace/dir/text")


@step("isolated sessions: overlays", lacks=not hasattr(isolated, "IsolatedOverlaySpec") and "overlays of isolated sessions")
async def isolated_overlays(box):
    async with sandbox(extensions={"bootstrap.execd.isolation": "enable"}) as host:
        session = await host.isolation.create(isolated.CreateIsolatedSessionRequest(overlays=[
            isolated.IsolatedOverlaySpec(path="/kept", mode="rw"), isolated.IsolatedOverlaySpec(path="/lost"),
            isolated.IsolatedOverlaySpec(path="/memory", persist=False)]))
        await session.run("echo kept > /kept/a; echo lost > /lost/a; echo memory > /memory/a")
        equal(lines((await session.run("cat /kept/a /lost/a /memory/a")).logs.stdout), ["kept", "lost", "memory"])
        equal(await session.files.read_file("/lost/a"), "lost\n")
        async with fails(404):
            await session.files.read_file("/memory/a")
        state = await session.get()
        equal([(one.path, one.mode, one.persist) for one in state.overlays],
              [("/kept", "rw", None), ("/lost", "overlay", None), ("/memory", "overlay", False)])
        await session.delete()
        equal(await host.files.read_file("/kept/a"), "kept\n")
        async with fails(404):
            await host.files.read_file("/lost/a")


@step("isolated sessions: background",
      lacks=not hasattr(isolated, "IsolatedBackgroundRun") and "background runs in isolated sessions")
async def isolated_background(box):
    async with isolated_session(box) as (host, session):
        started = await session.run_background("echo one; until [ -e /workspace/go ]; do sleep 0.05; done; echo two; exit 4")
        check((await session.run_status(started.run_id)).running, "it runs")

        async def first():
            logs = await session.run_logs(started.run_id)
            return logs.text and logs
        logs = await until(first, "output")
        equal((logs.text, logs.cursor), ("one\n", 4))
        await session.files.write_file("/workspace/go", "")

        async def ended():
            status = await session.run_status(started.run_id)
            return not status.running and status
        equal((await until(ended, "end")).exit_code, 4)
        logs = await session.run_logs(started.run_id, logs.cursor)
        equal((logs.text, logs.cursor), ("two\n", 8))


@step("kill")
async def kill(box):
    await box.kill()
    async with fails(404):
        await box.get_info()
    async with await SandboxManager.create() as manager:
        page = await manager.list_sandbox_infos(SandboxFilter(metadata={"run": RUN}))
        equal([info.id for info in page.sandbox_infos], [])


async def main():
    box = await Sandbox.create("python:3.12", metadata={"run": RUN}, env={"NAME": "of the sandbox"})
    failed = 0
    try:
        for name, function, lacks in steps:
            if lacks:
                print(f"skip {name}: the SDK has no {lacks}", flush=True)
                continue
            try:
                await asyncio.wait_for(function(box), STEP_TIMEOUT)
                print(f"ok {name}", flush=True)
            except Exception as error:
                failed += 1
                where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
                print(f"FAIL {name}: line {where[-1].lineno}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    finally:
        await end(box)
    return failed


sys.exit(1 if asyncio.run(main()) else 0)
