import { existsSync, readFileSync } from "node:fs";

/** The version of this package, from the `package.json` above this file. */
export function packageVersion(): string {
  let folder = new URL(".", import.meta.url);
  while (!existsSync(new URL("package.json", folder)) && folder.pathname !== "/") {
    folder = new URL("..", folder);
  }
  const manifest = JSON.parse(readFileSync(new URL("package.json", folder), "utf8")) as { version: string };
  return manifest.version;
}
