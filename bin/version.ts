import { existsSync, readFileSync } from "node:fs";

/** Reads the version of the installed files from the `package.json` above this file. */
export function installedVersion(): string {
  let folder = new URL(".", import.meta.url);
  while (!existsSync(new URL("package.json", folder)) && folder.pathname !== "/") {
    folder = new URL("..", folder);
  }
  const manifest = JSON.parse(readFileSync(new URL("package.json", folder), "utf8")) as { version: string };
  return manifest.version;
}

const ownVersion = installedVersion();

/** Answers the version that this process runs, even if another one was installed since. */
export function packageVersion(): string {
  return ownVersion;
}
