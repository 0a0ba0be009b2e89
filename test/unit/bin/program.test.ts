import { CommanderError } from "commander";
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

test.each(["start", "stop", "restart", "reload", "status"])("%s takes no positionals", async (command) => {
  await expect(parse(command, "worker-1")).rejects.toMatchObject(
    usage(
      new RegExp(`too many arguments for '${command}'`),
      new RegExp(`openstarry-daemon ${command} --help`),
    ),
  );
});

test.each([
  [["strat"], /unknown command 'strat'/, /^did you mean start\?$/],
  [["agent", "stpo", "x"], /unknown command 'stpo'/, /^openstarry-daemon agent --help explains it$/],
  [["agent", "rmm", "x"], /unknown command 'rmm'/, /^openstarry-daemon agent --help explains it$/],
  [["stpo"], /unknown command 'stpo'/, /^(?!.*\b(stop|restart|rm)\b)/],
  [["restrat"], /unknown command 'restrat'/, /^(?!.*\b(stop|restart|rm)\b)/],
  [["list", "--tre"], /unknown option '--tre'/, /^did you mean --tree\?$/],
  [["qqqqqqqq"], /unknown command 'qqqqqqqq'/, /^openstarry-daemon --help explains it$/],
  [["agent", "signal", "x"], /required option '-s, --signal <name>' not specified/, /agent signal --help/],
  [["why"], /missing required argument 'id'/, /openstarry-daemon why --help/],
  [["start", "--port"], /option '--port <number>' argument missing/, /start --help/],
  [["start", "--port", "70000"], /'70000' is invalid\. expected a port number, 0 to 65535/, /start --help/],
  [["logs", "-n", "-1"], /'-1' is invalid\. expected a whole number/, /logs --help/],
  [["wait", "x", "--timeout", "30"], /expected a duration with its unit/, /wait --help/],
  [["list", "--state", "runing"], /no state "runing": did you mean "running"\?/, /list --help/],
  [["run", "T", "--param", "novalue"], /expected NAME=VALUE, got "novalue"/, /run --help/],
  [["run", "T", "--param", "a=1", "--param", "a=2"], /a is given twice/, /run --help/],
  [["agent", "signal", "x", "-s", "9"], /expected the name of a signal/, /agent signal --help/],
  [["logs", "--stream", "out"], /expected "stdout" or "stderr"/, /logs --help/],
])("%j is wrong usage: %s, hint %s", async (argv, detail, hint) => {
  await expect(parse(...argv)).rejects.toMatchObject(usage(detail, hint));
});

test.each([
  [[], /no template is named/],
  [["A", "B"], /one template is expected, got A B/],
  [["--id", "x", "--"], /no command behind --/],
  [["--", "sleep", "1"], /a command needs an id/],
  [["T", "--id", "x", "--", "sleep", "1"], /"T" stands before --/],
  [["--id", "x", "--param", "a=1", "--", "sleep"], /--param goes with a template only/],
  [["T", "--no-start", "--wait"], /--wait waits for an agent that --no-start does not start/],
  [["T", "--timeout", "5s"], /--timeout goes with --wait only/],
])("run %j is wrong usage", async (argv, detail) => {
  await expect(parse("--home", "/nonexistent", "run", ...argv)).rejects.toMatchObject(usage(detail, /./));
});

test("help and version are no errors; no command at all is one", async () => {
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

test("--home is understood before and behind the command", async () => {
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
