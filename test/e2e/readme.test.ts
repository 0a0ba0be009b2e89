import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const readme = readFileSync(join(root, "README.md"), "utf8");

interface Step {
  command: string;
  output: string[];
}

/** The commands of the tour, each with the output that the page claims. */
function tourSteps(): Step[] {
  const tour = /<!-- tour -->(.*?)<!-- \/tour -->/s.exec(readme)?.[1] ?? "";
  const steps: Step[] = [];
  for (const [, block = ""] of tour.matchAll(/```console\n(.*?)```/gs)) {
    for (const line of block.trimEnd().split("\n")) {
      if (line.startsWith("$ ")) steps.push({ command: line.slice(2), output: [] });
      else steps.at(-1)?.output.push(line);
    }
  }
  return steps;
}

/** What differs from run to run, made equal. */
function normalise(lines: readonly string[], home: string): string[] {
  return lines
    .map((line) =>
      line
        .replaceAll(home, "~")
        .replaceAll(root, "~/openstarry-daemon")
        .replace(/127\.0\.0\.1:\d+/g, "127.0.0.1:PORT")
        .replace(/\(pid \d+/g, "(pid N")
        .replace(/pid +\d+/g, "pid N")
        .replace(/\b\d+(\.\d+)?(ms|s)\b/g, "T")
        // In the table of `list`, figures are there from the second look on.
        .replace(/ ([\d.]+%|-) +([\d.]+[KMGT]?i?B|-) +T /, " T ")
        // The pid is the number before the time.
        .replace(/ \d+ +T /g, " N T ")
        .replace(/ +/g, " ")
        .replace(" CPU MEM UP ", " UP ")
        .replace(/( -)+ /g, " - ")
        .replace("master starting", "master running")
        .trimEnd(),
    )
    .filter((line) => line !== "");
}

test("the README's tour: every command answers what the page says", () => {
  const home = mkdtempSync(join(tmpdir(), "openstarry-readme-"));
  const bin = join(home, "bin");
  const steps = tourSteps();
  expect(steps.length).toBeGreaterThan(8);
  execFileSync("mkdir", [bin]);
  // Port 5050 may be taken on the machine that tests: any other will do.
  const wrapper = `#!/bin/sh\n[ "$1" = start ] && set -- "$@" --port 0\nexec ${process.execPath} ${root}/dist/bin/openstarry-daemon.js "$@"\n`;
  writeFileSync(join(bin, "openstarry-daemon"), wrapper, { mode: 0o755 });
  const script = steps.flatMap(({ command }, index) => [
    // People read before they go on; the test waits for what they would see.
    ...(command === "openstarry-daemon logs master"
      ? ["grep -m1 -q 'standing by' <(openstarry-daemon logs master -f); kill $!"]
      : []),
    `printf "\\n@@@ %d\\n" ${index}`,
    command
      .replace(
        "127.0.0.1:5050",
        `127.0.0.1:$(grep -o '"port": *[0-9]*' ~/.openstarry/daemon/daemon.json | grep -o '[0-9]*')`,
      )
      .replace("> result.json", "> ~/result.json"),
  ]);
  const inherited = Object.entries(process.env).filter(([name]) => !/^(OPENSTARRY|OPENAI)_/.test(name));
  const env = { ...Object.fromEntries(inherited), HOME: home, PATH: `${bin}:${process.env["PATH"]}` };
  try {
    const run = spawnSync("bash", ["-c", `exec 2>&1\n${script.join("\n")}\n`], {
      cwd: root,
      env,
      encoding: "utf8",
      timeout: 60_000,
    });
    const parts = run.stdout.split(/^@@@ \d+\n/m).slice(1);
    for (const [index, { command, output }] of steps.entries()) {
      const seen = normalise((parts[index] ?? "").split("\n"), home);
      expect(seen, command).toEqual(normalise(output, home));
    }
    expect(JSON.parse(readFileSync(join(home, "result.json"), "utf8"))).toMatchObject({ rows: 2922 });
  } finally {
    if (existsSync(join(home, ".openstarry"))) spawnSync(join(bin, "openstarry-daemon"), ["stop"], { env });
    rmSync(home, { recursive: true, force: true });
  }
}, 90_000);
