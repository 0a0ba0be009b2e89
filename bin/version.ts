import { existsSync, readFileSync } from "node:fs";

/** The version of the files that are installed now, from the `package.json` above this file. */
export function installedVersion(): string {
  let folder = new URL(".", import.meta.url);
  while (!existsSync(new URL("package.json", folder)) && folder.pathname !== "/") {
    folder = new URL("..", folder);
  }
  const manifest = JSON.parse(readFileSync(new URL("package.json", folder), "utf8")) as { version: string };
  return manifest.version;
}

const ownVersion = installedVersion();

/** The version that this process runs, whatever has been installed over its files since. */
export function packageVersion(): string {
  return ownVersion;
}
