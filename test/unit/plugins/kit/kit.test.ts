import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT } from "../../../docs/pages.js";

/** The packages that a source file imports, itself or by way of other files. */
function packagesOf(entry: string): Set<string> {
  const packages = new Set<string>();
  const seen = new Set<string>();
  const waiting = [join(ROOT, entry)];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (seen.has(file)) continue;
    seen.add(file);
    const imports = readFileSync(file, "utf8").matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"\n]+)"/g);
    for (const [, specifier = ""] of imports) {
      if (specifier.startsWith(".")) waiting.push(join(dirname(file), specifier.replace(/\.js$/, ".ts")));
      else packages.add(specifier);
    }
  }
  return packages;
}

describe("the kit", () => {
  test("the kit's index imports no database driver, client or native module", () => {
    const packages = packagesOf("plugins/kit/index.ts");
    expect(packages).toContain("zod");
    for (const heavy of ["libsql", "ioredis", "koffi", "pg"]) expect(packages).not.toContain(heavy);
  });

  test("kit/redis and kit/sqlite import the packages that the kit's index does not", () => {
    expect(packagesOf("plugins/kit/redis/index.ts")).toContain("ioredis");
    expect(packagesOf("plugins/kit/sqlite/index.ts")).toContain("libsql");
  });

  test("the README of the kit lists every export of its index", () => {
    const readme = readFileSync(join(ROOT, "plugins/kit/README.md"), "utf8");
    for (const entry of ["index.ts", "bus/index.ts", "redis/index.ts", "sqlite/index.ts"]) {
      const path = join(ROOT, "plugins/kit", entry);
      expect(existsSync(path)).toBe(true);
      const text = readFileSync(path, "utf8");
      const names = [...text.matchAll(/export (?:type )?\{([^}]*)\}/g)]
        .filter(([line]) => !line.startsWith("export type"))
        .flatMap(([, list = ""]) => list.split(",").map((name) => name.trim()))
        .filter((name) => name !== "" && !name.startsWith("type "));
      expect(names.length).toBeGreaterThan(0);
      expect(names.filter((name) => !readme.includes(`\`${name}\``))).toEqual([]);
    }
  });
});
