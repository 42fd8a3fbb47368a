/** Errors about places in files. */
import { ConfigError, type ErrorDetails } from "../errors.ts";

/** An error about `place`, `file:line:column`, which its message begins with. */
export function placedError(code: string, place: string, message: string, details: ErrorDetails = {}): ConfigError {
  return new ConfigError(code, `${place}: ${message}`, { ...details, data: { ...details.data, place } });
}
