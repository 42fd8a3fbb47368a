/**
 * The command line that dies when it is told: by a {@linkcode KillPlan} in `WALRUST_KILL` before it starts, or by one on
 * a line of its standard input while it runs.
 */
import process from "node:process";
import { createInterface } from "node:readline";
import { main } from "../../src/cli/main.ts";
import { systemProcess } from "../../src/runtime/system_process.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { hookedRuntime, KillHook } from "./kill_hook.ts";

const hook = new KillHook();
const { WALRUST_KILL: first, WALRUST_NO_ROOM: noRoom } = process.env;
if (first !== undefined) hook.arm(JSON.parse(first));
createInterface({ input: process.stdin }).on("line", (line) => hook.arm(JSON.parse(line)));
const self = systemProcess();
self.exit(await main(self, hookedRuntime(systemRuntime(), hook, noRoom === undefined)));
