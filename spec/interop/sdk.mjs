// Drives the server of OPEN_SANDBOX_DOMAIN through the official JavaScript SDK, step by step.
//
// Prints "ok NAME", or "FAIL NAME: why" for each step.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { pathToFileURL } from "node:url";

// Installed below build/, not beside this file.
const require = createRequire(pathToFileURL(process.cwd() + "/build/js/"));
const { ConnectionConfig, Sandbox, SandboxApiException, SandboxManager } = require("@alibaba-group/opensandbox");

const RUN = String(Math.floor(Date.now() / 1000)); // in the metadata of every sandbox made here
const STEP_TIMEOUT = 30_000;

const steps = [];
const step = (name, run) => steps.push([name, run]);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Whether the call raises the SDK's error of an answer with this status.
async function fails(status, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof SandboxApiException, `a SandboxApiException, not ${error}`);
    assert.equal(error.statusCode, status);
    return true;
  });
}

// Kills a sandbox, which may be dead already, and closes what the SDK holds for it.
async function end(sandbox) {
  try {
    await sandbox.kill();
  } catch (error) {
    assert.equal(error.statusCode, 404);
  } finally {
    await sandbox.close();
  }
}

async function withSandbox(options, use) {
  const sandbox = await Sandbox.create({ image: "python:3.12", ...options, metadata: { run: RUN, ...options.metadata } });
  try {
    await use(sandbox);
  } finally {
    await end(sandbox);
  }
}

async function withManager(use) {
  const manager = SandboxManager.create();
  try {
    await use(manager);
  } finally {
    await manager.close();
  }
}

const lines = (messages) => messages.map((message) => message.text.replace(/\n$/, ""));
const ids = (page) => page.items.map((item) => item.id);

async function until(condition, what) {
  for (let tries = 0; tries < 100; tries++) {
    const value = await condition();
    if (value) return value;
    await pause(100);
  }
  assert.fail(`no ${what} within 10 seconds`);
}

function freePort() {
  return new Promise((resolve) => {
    const listener = createServer().listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });
}

const ended = (box, id) => until(async () => {
  const status = await box.commands.getCommandStatus(id);
  return !status.running && status;
}, "end");

// Commands

step("create", async (box) => {
  const info = await box.getInfo();
  assert.equal(info.id, box.id);
  assert.equal(info.status.state, "Running");
  assert.equal(info.image.uri, "python:3.12");
  assert.deepEqual(info.entrypoint, ["tail", "-f", "/dev/null"]);
  assert.equal(info.metadata.run, RUN);
  assert.ok(Math.abs(info.expiresAt - info.createdAt - 600_000) < 1000, "it expires in ten minutes");
  assert.ok(await box.isHealthy());
});

step("run", async (box) => {
  let result = await box.commands.run("echo one; echo two >&2; echo; echo -n three");
  assert.equal(result.exitCode, 0);
  assert.deepEqual(lines(result.logs.stdout), ["one", "", "three"]);
  assert.deepEqual(lines(result.logs.stderr), ["two"]);
  assert.ok(result.id && result.complete && !result.error);
  result = await box.commands.run("echo out; exit 3");
  assert.deepEqual([result.exitCode, result.error.name, result.error.value], [3, "CommandExecError", "3"]);
  assert.deepEqual(lines(result.logs.stdout), ["out"]);
});

step("run: cwd, env, user", async (box) => {
  const [uid, gid] = [process.getuid(), process.getgid()];
  const result = await box.commands.run("echo ${PWD##*/}; echo $COLOUR $NAME; id -u",
    { workingDirectory: "/tmp", envs: { COLOUR: "blue" }, uid, gid });
  const said = lines(result.logs.stdout);
  assert.deepEqual(said.slice(0, 2), ["tmp", "blue of the sandbox"]);
  assert.ok(["0", String(uid)].includes(said[2]), "it runs as who it was told to, or as who that is inside");
});

step("run: timeout", async (box) => {
  const began = Date.now();
  const result = await box.commands.run("echo early; sleep 20; echo late", { timeoutSeconds: 1 });
  assert.ok(Date.now() - began < 10_000, "it does not wait for the command");
  assert.deepEqual(lines(result.logs.stdout), ["early"]);
  assert.ok(result.error && result.exitCode !== 0);
});

step("stream", async (box) => {
  const seen = [];
  const result = await box.commands.run(
    "echo first; until [ -e tmp/heard ]; do sleep 0.05; done; echo second; sleep 0.3; echo third >&2",
    { timeoutSeconds: 8 }, {
      onInit: (event) => { seen.push(["init", event.id]); },
      onStdout: async (message) => {
        seen.push(["stdout", message.text.trimEnd()]);
        if (seen.length === 2) await box.files.writeFiles([{ path: "/tmp/heard", data: "yes" }]); // now it goes on
      },
      onStderr: (message) => { seen.push(["stderr", message.text.trimEnd()]); },
      onExecutionComplete: (event) => { seen.push(["complete", event.executionTimeMs >= 0]); },
    });
  assert.equal(result.exitCode, 0);
  assert.deepEqual(seen,
    [["init", result.id], ["stdout", "first"], ["stdout", "second"], ["stderr", "third"], ["complete", true]]);
});

step("stream: as an iterator", async (box) => {
  const types = [];
  for await (const event of box.commands.runStream("echo text; exit 2")) {
    types.push(event.type);
    if (event.type === "stdout") assert.equal(event.text.trimEnd(), "text");
    if (event.type === "error") assert.equal(event.error.evalue, "2");
  }
  assert.deepEqual(types.filter((type) => type !== "ping"), ["init", "stdout", "error"]);
});

step("background", async (box) => {
  const started = await box.commands.run("echo one; until [ -e tmp/go ]; do sleep 0.05; done; echo two; exit 4",
    { background: true });
  let status = await box.commands.getCommandStatus(started.id);
  assert.deepEqual([status.id, status.running, status.exitCode ?? null], [started.id, true, null]);
  let logs = await until(async () => {
    const logs = await box.commands.getBackgroundCommandLogs(started.id, 0);
    return logs.content && logs;
  }, "output");
  assert.deepEqual([logs.content, logs.cursor], ["one\n", 4]);
  await box.files.writeFiles([{ path: "/tmp/go", data: "" }]);
  status = await ended(box, started.id);
  assert.equal(status.exitCode, 4);
  assert.ok(status.startedAt <= status.finishedAt);
  logs = await box.commands.getBackgroundCommandLogs(started.id, logs.cursor);
  assert.deepEqual([logs.content, logs.cursor], ["two\n", 8]);
});

step("interrupt", async (box) => {
  const started = await box.commands.run("sleep 60", { background: true });
  await box.commands.interrupt(started.id);
  assert.notEqual((await ended(box, started.id)).exitCode, 0);
  await fails(404, () => box.commands.getCommandStatus("nothing"));
});

// Files

const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);

step("files: write, read", async (box) => {
  await box.files.writeFiles([
    { path: "/data/text", data: "äöü\nsecond line\n", mode: 640 },
    { path: "/data/deep/er/bytes", data: bytes },
    { path: "/data/blob", data: new Blob([bytes]) },
  ]);
  assert.equal(await box.files.readFile("/data/text"), "äöü\nsecond line\n");
  assert.deepEqual(await box.files.readBytes("/data/deep/er/bytes"), bytes);
  assert.deepEqual(await box.files.readBytes("/data/blob"), bytes);
  assert.equal(await box.files.readFile("/data/deep/er/bytes", { range: "bytes=65-69" }), "ABCDE");
  assert.deepEqual(await box.files.readBytes("/data/deep/er/bytes", { range: "bytes=-2" }), Uint8Array.of(254, 255));
  async function* parts() {
    for (let number = 0; number < 100; number++) yield bytes;
  }
  await box.files.writeFiles([{ path: "/data/streamed", data: parts() }]);
  assert.equal((await box.files.readBytes("/data/streamed")).length, 25600);
  await fails(404, () => box.files.readFile("/data/nothing"));
});

step("files: lines", async (box) => {
  await box.files.writeFiles([{ path: "/data/lines", data: "1\n2\n3\n4\n5\n" }]);
  assert.equal(await box.files.readFile("/data/lines", { offset: 2, limit: 2 }), "2\n3"); // execd drops the last newline
  assert.equal(await box.files.readFile("/data/lines", { offset: 5 }), "5");
});

step("files: read a stream", async (box) => {
  const source = readFileSync(process.execPath).subarray(0, 1 << 20);
  await box.files.writeFiles([{ path: "/data/large", data: source }]);
  const chunks = [];
  for await (const chunk of box.files.readBytesStream("/data/large")) chunks.push(chunk);
  assert.ok(chunks.length > 1, "it comes in parts");
  assert.ok(Buffer.concat(chunks).equals(source));
});

step("files: info, chmod", async (box) => {
  await box.files.writeFiles([{ path: "/data/mode", data: "12345", mode: 600 }]);
  const info = async () => (await box.files.getFileInfo(["/data/mode"]))["/data/mode"];
  const before = await info();
  assert.deepEqual([before.path, before.type, before.mode, before.size], ["/data/mode", "file", 600, 5]);
  assert.ok(Math.abs(before.modifiedAt - Date.now()) < 60_000);
  await box.files.setPermissions([{ path: "/data/mode", mode: 755 }]);
  assert.equal((await info()).mode, 755);
  await fails(404, () => box.files.getFileInfo(["/data/nothing"]));
});

step("files: search, list", async (box) => {
  await box.files.writeFiles(["a.txt", "b.md", "sub/c.txt"].map((name) => ({ path: `/tree/${name}`, data: name })));
  const found = await box.files.search({ path: "/tree", pattern: "**/*.txt" });
  assert.deepEqual(found.map((entry) => [entry.path, entry.size]).sort(), [["/tree/a.txt", 5], ["/tree/sub/c.txt", 9]]);
  assert.equal((await box.files.search({ path: "/tree" })).length, 3);
  const listed = await box.files.listDirectory({ path: "/tree" });
  assert.deepEqual(listed.map((entry) => [entry.path, entry.type]).sort(),
    [["/tree/a.txt", "file"], ["/tree/b.md", "file"], ["/tree/sub", "directory"]]);
  assert.equal((await box.files.listDirectory({ path: "/tree", depth: 2 })).length, 4);
});

step("files: move", async (box) => {
  await box.files.writeFiles([{ path: "/data/from", data: "moved" }]);
  await box.files.moveFiles([{ src: "/data/from", dest: "/data/to" }]);
  assert.equal(await box.files.readFile("/data/to"), "moved");
  await fails(404, () => box.files.getFileInfo(["/data/from"]));
});

step("files: replace", async (box) => {
  await box.files.writeFiles([{ path: "/data/replace", data: "one two one" }]);
  await box.files.replaceContents([{ path: "/data/replace", oldContent: "one", newContent: "1" }]);
  assert.equal(await box.files.readFile("/data/replace"), "1 two 1");
  const results = await box.files.replaceContentsDetailed([
    { path: "/data/replace", oldContent: "1", newContent: "eins" },
    { path: "/data/text", oldContent: "not there", newContent: "" },
  ]);
  assert.deepEqual(Object.fromEntries(results.map((result) => [result.path, result.replacedCount])),
    { "/data/replace": 2, "/data/text": 0 });
});

step("files: directories, delete", async (box) => {
  await box.files.createDirectories([{ path: "/made/by/hand", mode: 700 }]);
  const info = (await box.files.getFileInfo(["/made/by/hand"]))["/made/by/hand"];
  assert.deepEqual([info.mode, info.type], [700, "directory"]);
  await box.files.writeFiles([{ path: "/made/by/file", data: "x" }]);
  await box.files.deleteFiles(["/made/by/file"]);
  await fails(404, () => box.files.readFile("/made/by/file"));
  await box.files.deleteDirectories(["/made"]);
  await fails(404, () => box.files.getFileInfo(["/made/by/hand"]));
});

// Lifecycle

step("list", async (box) => {
  await withSandbox({ metadata: { list: "one" } }, async (one) => {
    await withSandbox({ metadata: { list: "two", "example.com/team": "red" } }, async (two) => {
      await withManager(async (manager) => {
        const list = (filter) => manager.listSandboxInfos(filter);
        let page = await list({ metadata: { list: "one" } });
        assert.deepEqual([ids(page), page.pagination.totalItems], [[one.id], 1]);
        assert.deepEqual(ids(await list({ metadata: { "example.com/team": "red", list: "two" } })), [two.id]);
        assert.deepEqual(ids(await list({ metadata: { list: "three" } })), []);
        assert.deepEqual(ids(await list({ states: ["Paused"], metadata: { run: RUN } })), []);
        page = await list({ states: ["Running", "Paused"], metadata: { run: RUN }, page: 1, pageSize: 2 });
        assert.deepEqual(page.pagination, { page: 1, pageSize: 2, totalItems: 3, totalPages: 2, hasNextPage: true });
        const next = await list({ metadata: { run: RUN }, page: 2, pageSize: 2 });
        assert.equal(next.pagination.hasNextPage, false);
        assert.deepEqual([...ids(page), ...ids(next)].sort(), [box.id, one.id, two.id].sort());
        assert.equal((await manager.getSandboxInfo(one.id)).metadata.list, "one");
        await manager.killSandbox(one.id);
        assert.deepEqual(ids(await list({ metadata: { list: "one" } })), []);
      });
    });
  });
});

step("metadata", async (box) => {
  let info = await box.patchMetadata({ stage: "one", colour: "red" });
  assert.deepEqual([info.metadata.stage, info.metadata.colour], ["one", "red"]);
  await box.patchMetadata({ stage: "two", colour: null });
  info = await box.getInfo();
  assert.deepEqual([info.metadata.stage, info.metadata.colour, info.metadata.run], ["two", undefined, RUN]);
  await fails(400, () => box.patchMetadata({ "opensandbox.io/own": "no" }));
});

step("endpoint", async (box) => {
  const served = await box.getEndpoint(44772);
  assert.ok(served.endpoint && !served.endpoint.includes("://"));
  assert.equal(await box.getEndpointUrl(44772), `http://${served.endpoint}`);
  assert.ok((await box.getEndpoint(18080)).endpoint, "the egress port has one");
  await fails(400, () => box.getEndpoint(0));
});

step("endpoint: another port", async (box) => {
  await box.files.writeFiles([{ path: "/www/index.html", data: "served from the sandbox" }]);
  const port = await freePort();
  const server = await box.commands.run(`exec python3 -m http.server ${port}`,
    { workingDirectory: "/www", background: true });
  const served = await box.getEndpoint(port);
  const url = `http://${served.endpoint}/index.html`;
  try {
    const text = await until(async () => {
      try {
        const response = await fetch(url, { headers: served.headers ?? {} });
        return response.status === 200 && await response.text();
      } catch {
        return null;
      }
    }, "answer");
    assert.equal(text, "served from the sandbox");
  } finally {
    await box.commands.interrupt(server.id);
  }
});

step("metrics", async (box) => {
  const got = await box.getMetrics();
  assert.ok(got.cpuCount >= 1 && got.memoryTotalMiB > got.memoryUsedMiB && got.memoryUsedMiB > 0);
  assert.ok(Math.abs(got.timestamp - Date.now()) < 60_000);
});

step("renew", async (box) => {
  const renewed = await box.renew(1800);
  assert.ok(Math.abs(renewed.expiresAt - Date.now() - 1800_000) < 10_000);
  assert.deepEqual((await box.getInfo()).expiresAt, renewed.expiresAt);
  await withSandbox({ timeoutSeconds: null }, async (forever) => {
    assert.equal((await forever.getInfo()).expiresAt, null);
    await fails(409, () => forever.renew(60));
  });
});

step("pause, resume", async () => {
  await withSandbox({}, async (paused) => {
    await paused.files.writeFiles([{ path: "/tmp/kept", data: "here" }]);
    await paused.pause();
    assert.equal((await paused.getInfo()).status.state, "Paused");
    const resumed = await Sandbox.resume({ sandboxId: paused.id });
    try {
      assert.equal((await resumed.getInfo()).status.state, "Running");
      assert.equal(await resumed.files.readFile("/tmp/kept"), "here");
    } finally {
      await resumed.close();
    }
  });
});

step("snapshots", async (box) => {
  await box.files.writeFiles([{ path: "/state", data: "of the first" }]);
  await withManager(async (manager) => {
    const made = await manager.createSnapshot(box.id, { name: "first" });
    try {
      assert.deepEqual([made.sandboxId, made.name], [box.id, "first"]);
      await until(async () => (await manager.getSnapshot(made.id)).status.state === "Ready", "snapshot");
      assert.deepEqual(ids(await manager.listSnapshots({ sandboxId: box.id })), [made.id]);
      await withSandbox({ image: undefined, snapshotId: made.id }, async (restored) => {
        assert.equal(await restored.files.readFile("/state"), "of the first");
        const info = await restored.getInfo();
        assert.deepEqual([info.snapshotId, info.image], [made.id, undefined]);
      });
    } finally {
      await manager.deleteSnapshot(made.id);
    }
    await fails(404, () => manager.getSnapshot(made.id));
  });
});

step("connect", async (box) => {
  await box.files.writeFiles([{ path: "/tmp/shared", data: "by two" }]);
  const other = await Sandbox.connect({ sandboxId: box.id });
  try {
    assert.equal(await other.files.readFile("/tmp/shared"), "by two");
  } finally {
    await other.close();
  }
});

step("errors", async () => {
  const unknown = "00000000-0000-4000-8000-000000000000";
  await withManager(async (manager) => {
    for (const call of ["getSandboxInfo", "killSandbox", "pauseSandbox"]) await fails(404, () => manager[call](unknown));
    const error = await manager.getSandboxInfo(unknown).catch((caught) => caught);
    assert.equal(error.error.code, "DOCKER::SANDBOX_NOT_FOUND");
    assert.ok(error.requestId, "it has the id of the request");
  });
  const metadata = { run: RUN };
  await fails(500, () => Sandbox.create({ image: "nope:latest", metadata }));
  await fails(400, () => Sandbox.create({ image: "python:3.12", metadata: { ...metadata, name: "not a label!" } }));
  await fails(401, () => Sandbox.create({ image: "python:3.12", metadata, connectionConfig: { apiKey: "wrong" } }));
});

step("through the server", async (box) => {
  const connectionConfig = new ConnectionConfig({ useServerProxy: true });
  const other = await Sandbox.connect({ sandboxId: box.id, connectionConfig });
  try {
    assert.match((await other.getEndpoint(44772)).endpoint, /\/proxy\//);
    assert.deepEqual(lines((await other.commands.run("echo proxied")).logs.stdout), ["proxied"]);
    await other.files.writeFiles([{ path: "/tmp/proxied", data: bytes }]);
    assert.deepEqual(await other.files.readBytes("/tmp/proxied"), bytes);
  } finally {
    await other.close();
  }
});

// What has servers of its own

step("sessions", async (box) => {
  const { commands } = box;
  const session = await commands.createSession({ workingDirectory: "/tmp" });
  let result = await commands.runInSession(session, "echo ${PWD##*/}; mkdir -p inner; cd inner; export COLOUR=green");
  assert.deepEqual([result.exitCode, lines(result.logs.stdout)], [0, ["tmp"]]);
  const heard = [];
  result = await commands.runInSession(session, "echo ${PWD##*/tmp/}; echo $COLOUR", {},
    { onStdout: (message) => { heard.push(message.text.trimEnd()); } });
  assert.deepEqual(lines(result.logs.stdout), ["inner", "green"]);
  assert.deepEqual(heard, ["inner", "green"]);
  assert.equal((await commands.runInSession(session, "exit 7")).exitCode, 7);
  result = await commands.runInSession(session, "test -d tmp && echo here", { workingDirectory: "/" });
  assert.deepEqual(lines(result.logs.stdout), ["here"]);
  await commands.deleteSession(session);
  await fails(404, () => commands.deleteSession(session));
});

step("egress", async () => {
  const networkPolicy = { defaultAction: "deny", egress: [{ action: "allow", target: "index.example" }] };
  await withSandbox({ networkPolicy }, async (guarded) => {
    const policy = async () => {
      const got = await guarded.getEgressPolicy();
      return [got.defaultAction, ...(got.egress ?? []).map((rule) => `${rule.action} ${rule.target}`)];
    };
    assert.deepEqual(await policy(), ["deny", "allow index.example"]);
    await guarded.patchEgressRules([{ action: "allow", target: "*.example.com" }]);
    assert.deepEqual(await policy(), ["deny", "allow *.example.com", "allow index.example"]);
    await guarded.patchEgressRules([{ action: "deny", target: "index.example" }]);
    assert.deepEqual(await policy(), ["deny", "allow *.example.com", "deny index.example"]);
    await guarded.deleteEgressRules(["index.example", "not.there"]);
    assert.deepEqual(await policy(), ["deny", "allow *.example.com"]);
  });
});

step("credential vault", async () => {
  const networkPolicy = { defaultAction: "deny", egress: [{ action: "allow", target: "api.example.com" }] };
  await withSandbox({ networkPolicy, credentialProxy: { enabled: true } }, async ({ credentialVault: vault }) => {
    const names = (list) => list.map((one) => one.name);
    await fails(404, () => vault.get());
    let state = await vault.create({
      credentials: [{ name: "token", source: { type: "inline", value: "secret" } }],
      bindings: [{ name: "api", match: { hosts: ["api.example.com"] }, auth: { type: "bearer", credential: "token" } }],
    });
    assert.deepEqual([state.revision, names(state.credentials), names(state.bindings)], [1, ["token"], ["api"]]);
    assert.equal(state.credentials[0].sourceType, "inline");
    state = await vault.patch({
      expectedRevision: 1, credentials: { add: [{ name: "second", source: { type: "inline", value: "x" } }] },
    });
    assert.deepEqual([state.revision, names(state.credentials)], [2, ["second", "token"]]);
    await fails(409, () => vault.patch({ expectedRevision: 1 }));
    assert.deepEqual(names(await vault.listCredentials()), ["second", "token"]);
    assert.equal((await vault.getCredential("token")).name, "token");
    const [binding] = await vault.listBindings();
    assert.deepEqual([binding.name, binding.auth.type, binding.match.hosts], ["api", "bearer", ["api.example.com"]]);
    assert.equal((await vault.getBinding("api")).name, "api");
    await fails(404, () => vault.getCredential("third"));
    await vault.delete();
    await fails(404, () => vault.get());
  });
});

// A session in a sandbox that may have some.
async function withIsolated(use) {
  await withSandbox({ extensions: { "bootstrap.execd.isolation": "enable" } }, async (host) => {
    await use(host, await host.isolation.create({ workspace: { path: "/workspace", mode: "rw" } }));
  });
}

step("isolated sessions", async () => {
  await withIsolated(async (host, session) => {
    assert.ok((await host.isolation.capabilities()).available);
    let result = await session.run("echo out; export COLOUR=red; cd /tmp");
    assert.deepEqual([result.exitCode, lines(result.logs.stdout)], [0, ["out"]]);
    assert.deepEqual(lines((await session.run("pwd; echo $COLOUR")).logs.stdout), ["/tmp", "red"]);
    result = await session.run("echo $NAME; (exit 3)", { envs: { NAME: "given" } });
    assert.deepEqual([result.exitCode, lines(result.logs.stdout)], [3, ["given"]]);
    assert.equal((await session.get()).status, "active");
    assert.deepEqual((await host.isolation.list()).map((one) => one.session_id), [session.sessionId]);
    const attached = await host.isolation.attach(session.sessionId);
    assert.deepEqual(lines((await attached.run("echo $COLOUR")).logs.stdout), ["red"]);
    const once = await host.isolation.runOnce("echo once", "/workspace", { workspaceMode: "rw" });
    assert.deepEqual(lines(once.logs.stdout), ["once"]);
    assert.equal((await host.isolation.list()).length, 1);
    await session.delete();
    assert.deepEqual(await host.isolation.list(), []);
  });
});

step("isolated sessions: files", async () => {
  await withIsolated(async (host, session) => {
    await session.files.writeFiles([{ path: "/workspace/dir/text", data: "one two one" }]);
    assert.deepEqual(lines((await session.run("cat /workspace/dir/text")).logs.stdout), ["one two one"]);
    assert.equal(await session.files.readFile("/workspace/dir/text"), "one two one");
    const found = await session.files.search({ path: "/workspace", pattern: "te*" });
    assert.deepEqual(found.map((entry) => entry.path), ["dir/text"]);
    await session.files.replaceContents([{ path: "/workspace/dir/text", oldContent: "one", newContent: "1" }]);
    await session.files.moveFiles([{ src: "/workspace/dir/text", dest: "/workspace/moved" }]);
    assert.equal(await session.files.readFile("/workspace/moved"), "1 two 1");
    await session.files.deleteFiles(["/workspace/moved"]);
    await fails(404, () => host.files.readFile("/workspace/dir/text"));
  });
});

step("kill", async (box) => {
  await box.kill();
  await fails(404, () => box.getInfo());
  await withManager(async (manager) => {
    assert.deepEqual(ids(await manager.listSandboxInfos({ metadata: { run: RUN } })), []);
  });
});

// The first line of this file that an error went through.
const place = (error) => /sdk\.mjs:(\d+)/.exec(error.stack ?? "")?.[1] ?? "?";

const box = await Sandbox.create({ image: "python:3.12", metadata: { run: RUN }, env: { NAME: "of the sandbox" } });
try {
  for (const [name, run] of steps) {
    const late = new AbortController();
    const timeout = new Promise((_, reject) => {
      const timer = setTimeout(() => reject(new Error("it takes more than 30 seconds")), STEP_TIMEOUT);
      late.signal.addEventListener("abort", () => clearTimeout(timer));
    });
    try {
      await Promise.race([run(box), timeout]);
      console.log(`ok ${name}`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`FAIL ${name}: line ${place(error)}: ${error}`.replace(/\s*\n\s*/g, " "));
    } finally {
      late.abort();
    }
  }
} finally {
  await end(box);
}
