#!/usr/bin/env node
/**
 * The command line: picks the runtime, dispatches, prints, exits.
 *
 * @module
 */
import { main } from "./src/cli/main.ts";
import { keepHeapSmall, systemProcess } from "./src/runtime/system_process.ts";
import { systemRuntime } from "./src/runtime/system.ts";

keepHeapSmall();
const self = systemProcess();
self.exit(await main(self, systemRuntime()));
