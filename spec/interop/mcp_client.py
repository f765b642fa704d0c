"""Drives `opensandbox mcp` through the official Python client of the Model Context Protocol, step by step.

Prints "ok NAME" or "FAIL NAME: why" for each step. The last step fails for a tool that no step has called.
"""

import asyncio
import os
import sys
import traceback

from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

STEP_TIMEOUT = 30


class Tools:
    """The tools of a session; it notes which ones were called."""

    def __init__(self, session):
        self.session = session
        self.called = set()

    async def __call__(self, tool, /, progress=None, **arguments):
        self.called.add(tool)
        result = await self.session.call_tool(tool, arguments, progress_callback=progress)
        if result.is_error:
            raise AssertionError(f"{tool}: {result.content[0].text}")
        return result.structured_content


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, not {wanted!r}")


async def run_sandboxes(tools, state):
    made = await tools("sandbox_create", image="python:3.12", metadata={"by": "mcp"}, env={"A": "1"},
                       network_policy={"default_action": "deny", "egress": [{"action": "allow", "target": "pypi.org"}]})
    state["id"] = made["sandbox_id"]
    equal(made["info"]["state"], "Running")
    equal((await tools("sandbox_connect", sandbox_id=state["id"]))["sandbox_id"], state["id"])
    equal((await tools("sandbox_get_info", sandbox_id=state["id"]))["metadata"], {"by": "mcp"})
    listed = await tools("sandbox_list", filter={"metadata": {"by": "mcp"}})
    equal([info["id"] for info in listed["sandbox_infos"]], [state["id"]])
    equal((await tools("sandbox_healthcheck", sandbox_id=state["id"]))["healthy"], True)
    equal(type((await tools("sandbox_renew", sandbox_id=state["id"], timeout_seconds=900))["expires_at"]), float)
    equal(type((await tools("sandbox_get_metrics", sandbox_id=state["id"]))["cpu_count"]), int)
    equal((await tools("sandbox_get_endpoint", sandbox_id=state["id"], port=8080))["sandbox_id"], state["id"])


async def run_commands(tools, state):
    seen = []

    async def progress(done, total, message):
        seen.append(message)

    ran = await tools("command_run", progress=progress, sandbox_id=state["id"], command="echo $A; exit 3")
    equal((ran["exit_code"], ran["stdout"]), (3, "1\n"))
    equal(seen, ["1\n"])
    started = await tools("command_run", sandbox_id=state["id"], command="echo begun; sleep 100", background=True)
    status = await tools("command_status", sandbox_id=state["id"], execution_id=started["id"])
    equal(status["running"], True)
    while (await tools("command_logs", sandbox_id=state["id"], execution_id=started["id"]))["text"] != "begun\n":
        await asyncio.sleep(0.05)
    await tools("command_interrupt", sandbox_id=state["id"], execution_id=started["id"])
    equal((await tools("sandbox_run", image="python:3.12", command="echo once"))["stdout"], "once\n")
    equal((await tools("code_run", sandbox_id=state["id"], code="x = 20\nx + 1"))["text"], "21")


async def run_files(tools, state):
    of = {"sandbox_id": state["id"]}
    await tools("file_create_directories", entries=[{"path": "/tmp/m", "mode": 755}], **of)
    await tools("file_write", path="/tmp/m/a.txt", content="one ä\n", mode=644, **of)
    equal((await tools("file_read", path="/tmp/m/a.txt", **of))["content"], "one ä\n")
    change = [{"path": "/tmp/m/a.txt", "old_content": "one", "new_content": "two"}]
    equal((await tools("file_replace_contents", entries=change, **of))["result"][0]["replaced_count"], 1)
    await tools("file_move", entries=[{"source": "/tmp/m/a.txt", "destination": "/tmp/m/b.txt"}], **of)
    equal(len((await tools("file_search", path="/tmp/m", pattern="*.txt", **of))["result"]), 1)
    equal(len((await tools("file_list", path="/tmp/m", **of))["result"]), 1)
    await tools("file_delete", paths=["/tmp/m/b.txt"], **of)
    equal((await tools("file_search", path="/tmp/m", pattern="*", **of))["result"], [])
    await tools("file_delete_directories", paths=["/tmp/m"], **of)


async def run_server_routes(tools, state):
    of = {"sandbox_id": state["id"]}
    equal((await tools("egress_get_policy", **of))["default_action"], "deny")
    policy = await tools("egress_allow", hosts=["example.com"], **of)
    equal("example.com" in [rule["target"] for rule in policy["egress"]], True)
    equal((await tools("snapshot_create", name="mcp", **of))["state"], "Ready")
    await tools("sandbox_pause", **of)
    await tools("sandbox_resume", **of)
    server = await tools("command_run", command="python3 -m http.server 18099 --bind 127.0.0.1", background=True, **of)
    await tools("sandbox_wait_for_port", port=18099, **of)
    await tools("command_interrupt", execution_id=server["id"], **of)
    await tools("sandbox_kill", **of)


async def run_errors(tools, state):
    result = await tools.session.call_tool("sandbox_get_info", {"sandbox_id": "no-such"})
    equal((result.is_error, "HTTP 404" in result.content[0].text), (True, True))
    result = await tools.session.call_tool("sandbox_get_info", {})
    equal((result.is_error, result.content[0].text), (True, "sandbox_get_info: sandbox_id is missing"))


async def main():
    parameters = StdioServerParameters(command=os.environ["LUA"], args=["bin/opensandbox", "mcp"], env=dict(os.environ))
    failed = False
    async with stdio_client(parameters) as (reader, writer), ClientSession(reader, writer) as session:
        print("ok connect to", (await session.initialize()).server_info.name, flush=True)
        tools, state = Tools(session), {}

        async def run_all_called(tools, state):
            names = {tool.name for tool in (await session.list_tools()).tools}
            equal(names - tools.called, set())

        for step in run_sandboxes, run_commands, run_files, run_errors, run_server_routes, run_all_called:
            name = step.__name__.removeprefix("run_").replace("_", " ")
            try:
                await asyncio.wait_for(step(tools, state), STEP_TIMEOUT)
                print("ok", name, flush=True)
            except Exception as error:
                failed = True
                print(f"FAIL {name}: {error!r}".replace("\n", " "), flush=True)
                traceback.print_exc()
    async with Client(parameters) as client:  # it chooses the newest revision that both know, which has no handshake
        try:
            equal(client.protocol_version, "2026-07-28")
            ran = await client.call_tool("sandbox_run", {"image": "python:3.12", "command": "echo newest"})
            equal(ran.structured_content["stdout"], "newest\n")
            print("ok newest revision", flush=True)
        except Exception as error:
            failed = True
            print(f"FAIL newest revision: {error!r}".replace("\n", " "), flush=True)
    return failed


sys.exit(asyncio.run(main()))
