// One work of the comparison of clients, with the official JavaScript SDK: work.mjs WORK URL KEY FILE. Prints lines "name=value".

import assert from "node:assert/strict";
import { createReadStream, createWriteStream, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { pathToFileURL } from "node:url";

const [name, url, key, path] = process.argv.slice(2);

// Installed below build/, not beside this file.
const require = createRequire(pathToFileURL(process.cwd() + "/build/js/"));
const { ConnectionConfig, Sandbox } = require("@alibaba-group/opensandbox");
if (name === "start") process.exit(0); // loading is all that is measured

const connectionConfig = new ConnectionConfig({ domain: url, apiKey: key, disableMetrics: true, requestTimeoutSeconds: 300 })
  .withTransportIfMissing();
const create = () => Sandbox.create({ connectionConfig, image: "any" });

const works = {
  async roundtrip(sandbox) {
    const times = [];
    for (let index = 0; index < 20; index++) {
      const began = performance.now();
      const execution = await sandbox.commands.run("true");
      assert.equal(execution.exitCode ?? 0, 0);
      times.push(performance.now() - began);
    }
    console.log(`median=${times.sort((a, b) => a - b)[9]}`);
  },
  async lines(sandbox) {
    const execution = await sandbox.commands.run("seq 200000");
    assert.equal(execution.logs.stdout.length, 200000);
  },
  async upload(sandbox) {
    await sandbox.files.writeFiles([{ path: "/tmp/big", data: Readable.toWeb(createReadStream(path)) }]);
  },
  async download(sandbox) {
    await pipeline(sandbox.files.readBytesStream("/tmp/big"), createWriteStream(path + ".down"));
    rmSync(path + ".down");
  },
  async many(sandbox) {
    await Promise.all(Array.from({ length: 100 }, () => sandbox.commands.run("sleep 0.5")));
  },
  async sandboxes() {
    let next = 0;
    const worker = async () => {
      while (next++ < 200) {
        const sandbox = await create();
        await sandbox.commands.run("true");
        await sandbox.kill();
      }
    };
    await Promise.all(Array.from({ length: 32 }, worker));
  },
};

const sandbox = name === "sandboxes" ? undefined : await create();
if (name === "download") await sandbox.commands.run("head -c 268435456 /dev/zero > /tmp/big");
const before = process.cpuUsage();
const began = performance.now();
await works[name](sandbox);
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(before);
console.log(`seconds=${seconds}`);
console.log(`processor=${(user + system) / 1e6}`);
if (sandbox) await sandbox.kill();
await connectionConfig.closeTransport();
console.log(`peak=${process.resourceUsage().maxRSS / 1024}`);
