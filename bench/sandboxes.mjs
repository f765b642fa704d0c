// The work of bench/sandboxes_work.lua with the official JavaScript SDK: sandboxes.mjs URL KEY COUNT CONCURRENCY.
//
// It gets what a careful user would give it: one transport for all sandboxes, so that connections are used again, and no telemetry.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, key, count, concurrency] = process.argv.slice(2);

// Installed below build/, not beside this file.
const require = createRequire(pathToFileURL(process.cwd() + "/build/js/"));
const { ConnectionConfig, Sandbox } = require("@alibaba-group/opensandbox");

function peakMemory() {
  const line = /VmHWM:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"));
  return Number(line[1]) / 1024;
}

function processor() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

const connectionConfig = new ConnectionConfig({ domain: url, apiKey: key, disableMetrics: true }).withTransportIfMissing();

async function use(number) {
  const sandbox = await Sandbox.create({ connectionConfig, image: "any" });
  const text = `sandbox ${number}\n`;
  await sandbox.files.writeFiles([{ path: "/tmp/in", data: text }]);
  const execution = await sandbox.commands.run("cat /tmp/in > /tmp/out; cat /tmp/out");
  const said = execution.logs.stdout.map((message) => message.text).join("\n");
  if (said.trim() !== text.trim()) throw new Error(`the command said ${JSON.stringify(said)}`);
  const result = await sandbox.files.readFile("/tmp/out");
  if (result !== text) throw new Error(`the file holds ${JSON.stringify(result)}`);
  await sandbox.kill();
}

async function useAll(total) {
  let next = 1;
  const worker = async () => {
    while (next <= total) await use(next++);
  };
  await Promise.all(Array.from({ length: Math.min(total, Number(concurrency)) }, worker));
}

await useAll(1); // everything is loaded
const peak = peakMemory();
const spent = processor();
const began = performance.now();
await useAll(Number(count));
console.log(`seconds=${(performance.now() - began) / 1000}`);
console.log(`processor=${processor() - spent}`);
console.log(`growth=${peakMemory() - peak}`);
await connectionConfig.closeTransport();
