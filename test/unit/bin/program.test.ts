import { type Command, CommanderError } from "commander";
import { expect, test } from "vitest";
import { createProgram } from "../../../bin/program.js";
import { createTestTerminal } from "../../helpers/test-terminal.js";

function parse(...argv: string[]) {
  const { terminal } = createTestTerminal();
  return createProgram({ terminal, env: {}, done: () => {} }).parseAsync(argv, { from: "user" });
}

const usage = (detail: RegExp, hint: RegExp) => ({
  code: "input_invalid",
  message: expect.stringMatching(detail),
  hint: expect.stringMatching(hint),
});

test.each(["start", "stop", "restart", "reload", "status"])("%s takes no arguments", async (command) => {
  await expect(parse(command, "worker-1")).rejects.toMatchObject(
    usage(
      new RegExp(`too many arguments for '${command}'`),
      new RegExp(`openstarry-daemon ${command} --help`),
    ),
  );
});

test.each([
  [["strat"], /unknown command 'strat'/, /^did you mean start\?$/],
  [["agent", "stpo", "x"], /unknown command 'stpo'/, /^see openstarry-daemon agent --help$/],
  [["agent", "help"], /unknown command 'help'/, /^see openstarry-daemon agent --help$/],
  [["agent", "rmm", "x"], /unknown command 'rmm'/, /^see openstarry-daemon agent --help$/],
  [["stpo"], /unknown command 'stpo'/, /^(?!.*\b(stop|restart|rm)\b)/],
  [["restrat"], /unknown command 'restrat'/, /^(?!.*\b(stop|restart|rm)\b)/],
  [["list", "--tre"], /unknown option '--tre'/, /^did you mean --tree\?$/],
  [["qqqqqqqq"], /unknown command 'qqqqqqqq'/, /^see openstarry-daemon --help$/],
  [["agent", "signal", "x"], /required option '-s, --signal <name>' not specified/, /agent signal --help/],
  [["why"], /missing required argument 'id'/, /openstarry-daemon why --help/],
  [["start", "--port"], /option '--port <number>' argument missing/, /start --help/],
  [["start", "--port", "70000"], /'70000' is invalid\. expected a port number, 0 to 65535/, /start --help/],
  [["logs", "-n", "-1"], /'-1' is invalid\. expected a whole number/, /logs --help/],
  [["wait", "x", "--timeout", "30"], /expected a duration with a unit/, /wait --help/],
  [["list", "--state", "runing"], /unknown state "runing": did you mean "running"\?/, /list --help/],
  [["run", "T", "--param", "novalue"], /expected NAME=VALUE, got "novalue"/, /run --help/],
  [["run", "T", "--param", "a=1", "--param", "a=2"], /a is given twice/, /run --help/],
  [["agent", "signal", "x", "-s", "9"], /expected a signal name/, /agent signal --help/],
  [["logs", "--stream", "out"], /expected "stdout" or "stderr"/, /logs --help/],
])("the words %j are refused: %s, hint %s", async (argv, detail, hint) => {
  await expect(parse(...argv)).rejects.toMatchObject(usage(detail, hint));
});

test.each([
  [[], /missing TEMPLATE/],
  [["A", "B"], /expected one template, got 2 words/],
  [["--id", "x", "--"], /missing COMMAND after --/],
  [["--", "sleep", "1"], /a command requires --id/],
  [["T", "--id", "x", "--", "sleep", "1"], /unexpected "T" before --/],
  [["--id", "x", "--param", "a=1", "--", "sleep"], /--param requires a template/],
  [["T", "--no-start", "--wait"], /--wait cannot be combined with --no-start/],
  [["T", "--timeout", "5s"], /--timeout requires --wait/],
])("run %j is refused", async (argv, detail) => {
  await expect(parse("--home", "/nonexistent", "run", ...argv)).rejects.toMatchObject(usage(detail, /./));
});

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

test("the help of each command lists an option once, and only its own options and the program's", () => {
  const { terminal } = createTestTerminal();
  const program = createProgram({ terminal, env: {}, done: () => {} });
  for (const command of everyCommand(program)) {
    const listed = [...command.helpInformation().matchAll(/^ {2}(-.*?)(?: {2}|$)/gm)].map(
      ([, flags]) => flags,
    );
    const own = command.options.map(({ flags }) => flags);
    const global = command === program ? [] : program.options.map(({ flags }) => flags);
    expect([command.name(), listed]).toEqual([command.name(), [...own, "-h, --help", ...global]]);
  }
});

test("help and version are no errors; a missing command is one", async () => {
  const outcome = (...argv: string[]) =>
    parse(...argv).catch((error: CommanderError) => [error instanceof CommanderError, error.exitCode]);
  const quiet = process.stdout.write;
  const quietError = process.stderr.write;
  process.stdout.write = () => true;
  process.stderr.write = () => true;
  try {
    expect(await outcome("--help")).toEqual([true, 0]);
    expect(await outcome("agent", "stop", "--help")).toEqual([true, 0]);
    expect(await outcome("--version")).toEqual([true, 0]);
    expect(await outcome("-v")).toEqual([true, 0]);
    expect(await outcome()).toEqual([true, 1]);
  } finally {
    process.stdout.write = quiet;
    process.stderr.write = quietError;
  }
});

test("--home may stand before or after the command", async () => {
  for (const argv of [
    ["--home", "/nonexistent", "status"],
    ["status", "--home", "/nonexistent"],
  ]) {
    const { terminal, stdout } = createTestTerminal();
    let code: number | undefined;
    const done = (exitCode: number) => {
      code = exitCode;
    };
    await createProgram({ terminal, env: {}, done }).parseAsync([...argv, "--json"], { from: "user" });
    expect([code, JSON.parse(stdout())]).toEqual([3, { running: false, home: "/nonexistent" }]);
  }
});
