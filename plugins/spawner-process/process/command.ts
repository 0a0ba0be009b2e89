import { accessSync, closeSync, constants, openSync, readSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { OpenStarryError, type SpawnSpec } from "../../../core/index.js";

/**
 * The file that will be executed, as execve(2) would find it: so that a bad one is refused before
 * anything is journaled, and not told apart from an agent's own exit 126 or 127 afterwards.
 */
export function resolveCommand(spec: SpawnSpec, path: string): string {
  const { command } = spec;
  const file = command.includes("/") ? resolve(spec.baseDir ?? "/", command) : searchPath(command, path);
  const where = `command of template ${spec.templateId}`;
  if (file === undefined || kindOf(file) === undefined) {
    throw new OpenStarryError("command_not_found", {
      detail: `${where}: there is no ${file ?? `"${command}" in its PATH`}`,
      hint: "install it, or correct the template's command",
    });
  }
  if (kindOf(file) !== "file" || !isExecutable(file)) {
    throw new OpenStarryError("command_not_executable", {
      detail: `${where}: ${file} ${kindOf(file) === "file" ? "has no execute permission" : "is a folder"}`,
      hint: kindOf(file) === "file" ? `chmod +x ${file}` : "name the program inside it",
    });
  }
  checkInterpreter(file, where, path);
  return file;
}

/** The working folder. */
export function resolveCwd(spec: SpawnSpec, runFolder: string): string {
  if (spec.cwd === undefined) return runFolder;
  const cwd = resolve(spec.baseDir ?? "/", spec.cwd);
  const kind = kindOf(cwd);
  const problem =
    kind === undefined
      ? "does not exist"
      : kind !== "folder"
        ? "is not a folder"
        : isExecutable(cwd)
          ? undefined
          : "may not be entered";
  if (problem === undefined) return cwd;
  throw new OpenStarryError("cwd_invalid", {
    detail: `cwd of template ${spec.templateId}: ${cwd} ${problem}`,
    hint: "create the folder, or correct the template's cwd",
  });
}

/** A name as execvp(3) would look it up; one that may be executed goes before one that may not. */
export function searchPath(name: string, path: string): string | undefined {
  const found = path
    .split(":")
    .filter(isAbsolute)
    .map((folder) => join(folder, name))
    .filter((file) => kindOf(file) === "file");
  return found.find(isExecutable) ?? found[0];
}

function kindOf(path: string): "file" | "folder" | "other" | undefined {
  let stat: ReturnType<typeof statSync> | undefined;
  try {
    stat = statSync(path, { throwIfNoEntry: false });
  } catch {
    // A folder on the way that may not be entered: for us it is not there.
  }
  if (!stat) return undefined;
  return stat.isFile() ? "file" : stat.isDirectory() ? "folder" : "other";
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A script's first line must name a program that exists; a file that is neither script nor binary fails later. */
function checkInterpreter(file: string, where: string, path: string): void {
  const head = Buffer.alloc(256);
  let length: number;
  let fd: number | undefined;
  try {
    fd = openSync(file, constants.O_RDONLY);
    length = readSync(fd, head, 0, head.length, 0);
  } catch {
    // It may be executed and not read.
    return;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  const refuse = (detail: string, hint: string) => {
    throw new OpenStarryError("command_not_executable", { detail: `${where}: ${file} ${detail}`, hint });
  };
  if (head.toString("latin1", 0, 4) === "\x7fELF") return;
  if (head.toString("latin1", 0, 2) !== "#!") {
    refuse(
      "is neither a program nor a script with a first line such as #!/bin/sh",
      "give it a first line that names its interpreter",
    );
  }
  const [interpreter = "", argument] =
    head.toString("utf8", 2, length).split("\n")[0]?.trim().split(/\s+/) ?? [];
  const named =
    interpreter.endsWith("/env") && argument && !argument.startsWith("-")
      ? searchPath(argument, path)
      : interpreter;
  if (named === undefined || kindOf(interpreter) !== "file" || !isExecutable(named)) {
    refuse(
      `wants the interpreter ${[interpreter, argument].filter(Boolean).join(" ")}, which is not there`,
      "install the interpreter, or correct the script's first line",
    );
  }
}
