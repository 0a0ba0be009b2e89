// Refreshes the files that are quoted in docs/. A quote is a line `<!-- file: PATH -->` and the fence below
// it. With --check nothing is written; pages with stale quotes are named, and the exit code is 1.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const folder = join(root, "docs");
const check = process.argv.includes("--check");
const QUOTE = /(<!-- file: (\S+) -->\n```ts\n)[\s\S]*?(```\n)/g;

for (const page of readdirSync(folder).filter((name) => name.endsWith(".md"))) {
  const file = join(folder, page);
  const before = readFileSync(file, "utf8");
  const after = before.replace(
    QUOTE,
    (_, head, path, tail) => head + readFileSync(join(root, path), "utf8") + tail,
  );
  if (after === before) continue;
  console.log(`docs/${page}: ${check ? "a quote is stale; refresh it with: npm run docs" : "refreshed"}`);
  if (check) process.exitCode = 1;
  else writeFileSync(file, after);
}
