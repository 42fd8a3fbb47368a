/**
 * Turns command-line words into a parsed command or a text to print. This is the one file that knows the
 * parsing library (commander): swap it here. Nothing is printed and nothing exits from here.
 */
import { Command, CommanderError, Option } from "commander";
import { ConfigError } from "../errors.ts";

/** One option of a command. */
export interface OptionSpec {
  /** As commander writes them: `-b, --bucket <url>`. */
  readonly flags: string;
  readonly description: string;
  /** Turns the word into a value; throws `ConfigError`. `flag` is the long name, for the message. */
  readonly parse?: (value: string, flag: string) => unknown;
  /** Value when the option is absent. */
  readonly fallback?: unknown;
  /** How the help shows {@linkcode fallback}, where its unit differs from the user's. */
  readonly fallbackText?: string;
  /** Not listed in the help. */
  readonly hidden?: boolean;
}

/** One positional argument, such as `<name>` or `<database...>`. */
export interface ArgumentSpec {
  readonly name: string;
  readonly description: string;
}

/** One command of the command line. */
export interface CommandSpec {
  readonly name: string;
  /** Another name for it. */
  readonly alias?: string;
  readonly summary: string;
  readonly arguments: readonly ArgumentSpec[];
  readonly options: readonly OptionSpec[];
  /** Lines printed after the options, such as examples. */
  readonly epilogue?: string;
  /** Not listed in the help. */
  readonly hidden?: boolean;
}

/** What the words meant; a text may come with the error that made it necessary. */
export type Parsed =
  | { kind: "text"; text: string; error: ConfigError | null }
  | {
    kind: "command";
    name: string;
    positionals: string[][];
    options: Record<string, unknown>;
    /** Names of the options that the words name: what the others are was not asked for. */
    given: ReadonlySet<string>;
  };

/** The whole command line. */
export interface ProgramSpec {
  readonly name: string;
  readonly version: string;
  readonly summary: string;
  readonly shared: readonly OptionSpec[];
  readonly commands: readonly CommandSpec[];
  readonly epilogue?: string;
}

/** Parses `words` (without program name); throws `ConfigError` (exit code 2) with a hint when they make no sense. */
export function parseArguments(program: ProgramSpec, words: readonly string[]): Parsed {
  let text = "";
  let parsed: Parsed | null = null;
  const root = new Command(program.name)
    .description(program.summary)
    .version(program.version, "--version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command");
  silence(root, (part) => text += part);
  for (const option of program.shared) root.addOption(optionOf(option));
  if (program.epilogue !== undefined) root.addHelpText("after", `\n${program.epilogue}`);
  for (const spec of program.commands) {
    const command = root.command(spec.name, { hidden: spec.hidden ?? false })
      .description(spec.summary)
      .helpOption("-h, --help", "print this help")
      .configureHelp({ showGlobalOptions: true })
      .allowExcessArguments(false);
    silence(command, (part) => text += part);
    if (spec.alias !== undefined) command.alias(spec.alias);
    for (const argument of spec.arguments) command.argument(argument.name, argument.description);
    for (const option of spec.options) command.addOption(optionOf(option));
    if (spec.epilogue !== undefined) command.addHelpText("after", `\n${spec.epilogue}`);
    command.action(() => {
      const positionals = command.processedArgs.map((value) =>
        value === undefined ? [] : Array.isArray(value) ? value.map(String) : [String(value)]
      );
      const options = command.optsWithGlobals();
      const given = new Set(
        Object.keys(options).filter((key) => command.getOptionValueSourceWithGlobals(key) === "cli"),
      );
      parsed = { kind: "command", name: spec.name, positionals, options, given };
    });
  }
  if (words.length === 0) {
    return { kind: "text", text: root.helpInformation() + epilogueOf(program), error: noCommand(program) };
  }
  try {
    root.parse([...words], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: "text", text, error: null };
    if (error.code !== "commander.help") throw usageError(program, words, error);
    // Help that was not asked for: there is no command, or none of the name after `help`.
    const [first, topic] = root.args;
    if (first === "help" && topic !== undefined) return parseArguments(program, [topic]);
  }
  if (parsed === null) throw noCommand(program);
  return parsed;
}

function noCommand(program: ProgramSpec): ConfigError {
  return new ConfigError("usage", "no command was given", { hint: `see ${program.name} --help` });
}

function epilogueOf(program: ProgramSpec): string {
  return program.epilogue === undefined ? "" : `\n${program.epilogue}\n`;
}

function silence(command: Command, write: (text: string) => void): void {
  command.exitOverride().configureOutput({
    writeOut: write,
    writeErr: () => {},
    // A fixed width: the same help on every terminal, and in tests.
    getOutHelpWidth: () => 100,
    getErrHelpWidth: () => 100,
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  });
}

function optionOf(spec: OptionSpec): Option {
  const option = new Option(spec.flags, spec.description);
  if (spec.fallback !== undefined) option.default(spec.fallback, spec.fallbackText);
  if (spec.hidden === true) option.hideHelp();
  const parse = spec.parse;
  if (parse !== undefined) option.argParser((value: string) => parse(value, `--${option.name()}`));
  return option;
}

/** commander's message says `error: …` and perhaps `(Did you mean …?)`; ours says what happened, the hint what to do. */
function usageError(program: ProgramSpec, words: readonly string[], error: CommanderError): ConfigError {
  const [first, ...rest] = error.message.replace(/^error: /, "").split("\n");
  const command = program.commands.find(({ name, alias = name }) => words.includes(name) || words.includes(alias));
  const help = `${program.name} ${command === undefined ? "" : `${command.name} `}--help`;
  const suggestion = rest.join(" ").trim().replace(/^\(/, "").replace(/\)$/, "");
  const see = `see ${help}`;
  return new ConfigError("usage", first, { hint: suggestion === "" ? see : `${suggestion} Else ${see}` });
}
