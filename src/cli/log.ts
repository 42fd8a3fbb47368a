/** Logging to stderr through LogTape, with the level of WALRUST_LOG (or RUST_LOG) or of the flags. */
import { configureSync, getLogger, type LogLevel, type LogRecord } from "@logtape/logtape";
import { ConfigError } from "../errors.ts";
import { printable } from "../format/keys.ts";
import type { Log } from "../runtime/types.ts";
import { formatTime, renderJson } from "./output.ts";

const levelNames: Record<string, LogLevel | null> = {
  error: "error",
  warn: "warning",
  warning: "warning",
  info: "info",
  debug: "debug",
  trace: "trace",
  off: null,
};

/**
 * The level asked for by `WALRUST_LOG` or `RUST_LOG`: a level, or `walrust=level`, parts separated by commas; `null`
 * means nothing at all, `undefined` that the variable does not speak of us. A word that is no level is refused.
 */
export function levelOf(value: string, variable: string): LogLevel | null | undefined {
  let general: LogLevel | null | undefined;
  let ours: LogLevel | null | undefined;
  for (const part of value.split(",").map((word) => word.trim()).filter((word) => word !== "")) {
    const equals = part.indexOf("=");
    const target = equals < 0 ? "" : part.slice(0, equals);
    // RUST_LOG is shared with other programs: what is meant for them is not ours to judge.
    if (target !== "" && target !== "walrust" && !target.startsWith("walrust::")) continue;
    const word = (equals < 0 ? part : part.slice(equals + 1)).toLowerCase();
    if (!Object.hasOwn(levelNames, word)) {
      if (variable === "RUST_LOG") continue;
      throw new ConfigError("bad_log_level", `${variable}: ${JSON.stringify(word)} is not a level`, {
        hint: "use error, warn, info, debug, trace or off, such as WALRUST_LOG=walrust=debug",
      });
    }
    if (target === "") general = levelNames[word];
    else ours = levelNames[word];
  }
  return ours === undefined ? general : ours;
}

/** Sets logging up and returns the log handed to the core. `write` receives whole lines. */
export function openLog(options: {
  environment: (name: string) => string | undefined;
  verbose: boolean;
  quiet: boolean;
  json: boolean;
  write: (text: string) => void;
}): Log {
  let level: LogLevel | null | undefined;
  for (const variable of ["WALRUST_LOG", "RUST_LOG"]) {
    const value = options.environment(variable);
    if (value !== undefined && value !== "" && level === undefined) level = levelOf(value, variable);
  }
  if (level === undefined) level = "warning";
  if (options.quiet) level = level === null ? null : "error";
  if (options.verbose) level = level === "trace" ? "trace" : "debug";
  const sink = (record: LogRecord): void => options.write(renderRecord(record, options.json));
  configureSync({
    reset: true,
    sinks: { stderr: sink },
    loggers: [
      { category: "walrust", sinks: ["stderr"], lowestLevel: level },
      { category: ["logtape", "meta"], sinks: ["stderr"], lowestLevel: "error" },
    ],
  });
  const logger = getLogger("walrust");
  return (severity, message, data) => {
    // The message is data, not a template: `{…}` in it (a file name) must come out as it is.
    logger[severity]("{message}", { message, data: data ?? {} });
  };
}

function renderRecord(record: LogRecord, json: boolean): string {
  const message = String(record.properties.message ?? record.rawMessage);
  const data = (record.properties.data ?? {}) as Record<string, unknown>;
  const time = formatTime(record.timestamp);
  if (json) return `${renderJson({ time, level: record.level, message, ...data })}\n`;
  const facts = Object.entries(data).map(([name, value]) => ` ${name}=${factOf(value)}`).join("");
  return `${time} ${record.level} ${printable(message)}${facts}\n`;
}

function factOf(value: unknown): string {
  if (typeof value === "bigint" || typeof value === "number") return String(value);
  return typeof value === "string" ? JSON.stringify(printable(value)) : renderJson(value) ?? "null";
}
