import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { createProgram } from "../../../bin/program.js";
import { createTestTerminal } from "../../helpers/test-terminal.js";

const program = createProgram({ terminal: createTestTerminal().terminal, env: {}, done: () => {} });

/** Every command that does something, as `agent stop`, with its flags as commander knows them. */
function known(command: Command, path: readonly string[] = []): [string, string[]][] {
  const below = command.commands.flatMap((child) => known(child, [...path, child.name()]));
  const runs = (command as unknown as { _actionHandler: unknown })._actionHandler;
  if (path.length === 0 || !runs) return below;
  return [[path.join(" "), command.options.map(({ flags }) => flags)], ...below];
}

/** The same out of the headings and the first columns of docs/cli.md. */
function documented(): [string, string[]][] {
  const text = readFileSync(new URL("../../../docs/cli.md", import.meta.url), "utf8");
  return text
    .split(/^### /m)
    .slice(1)
    .map((section) => {
      const name = /^`([^`]+)`/.exec(section)?.[1] ?? section;
      return [name, [...section.matchAll(/^\| `(-[^`]+)` \|/gm)].map(([, flags]) => flags ?? "")];
    });
}

test("docs/cli.md lists exactly the existing commands and their flags", () => {
  expect(Object.fromEntries(documented())).toEqual(Object.fromEntries(known(program)));
});

test("docs/cli.md lists the global flags", () => {
  const text = readFileSync(new URL("../../../docs/cli.md", import.meta.url), "utf8");
  for (const flags of ["-h, --help", "--home <dir>"]) expect(text).toContain(`\`${flags}\``);
  expect(program.options.map(({ flags }) => flags).sort()).toEqual(["--home <dir>", "-v, --version"]);
});
