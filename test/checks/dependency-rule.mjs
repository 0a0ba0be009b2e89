// Holds every import of core/, plugins/ and bin/ against the dependency rule (docs/architecture.md) and reports
// import cycles. Biome's noRestrictedImports compares text, not resolved paths, and so cannot tell a plugin's own
// inner folder from another plugin.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";

/** The rooms of core/, and the rooms that each may import besides itself. */
const CORE = {
  contracts: [],
  lib: ["contracts"],
  template: ["contracts", "lib"],
  host: ["contracts", "lib"],
  agents: ["contracts", "lib", "host", "template"],
  config: ["contracts", "lib", "host", "template", "kernel.ts"],
  "kernel.ts": ["contracts", "lib", "host", "template", "agents"],
  "index.ts": ["contracts", "lib", "host", "template", "agents", "config", "kernel.ts"],
};

/** Modules that the kernel must not load, and why. */
const NOT_IN_CORE = {
  "node:child_process": "The kernel starts no processes: that is a spawner's.",
  "node:http": "The kernel speaks no network protocol.",
  "node:net": "The kernel speaks no network protocol.",
  pidusage: "The kernel measures nothing.",
};

const AGENT_SIDE = [
  "core/contracts/errors.ts",
  "core/lib/error-text.ts",
  "core/lib/nearest.ts",
  "core/lib/units.ts",
];
const OF_BIN = /^plugins\/(builtins|agent-manager-tool\/(client|tools)\/(client|tool))\.ts$/;

/**
 * Why `file` may not import `specifier`; `undefined` when it may. Paths are relative to the root of the repository.
 * @param {string} file
 * @param {string} specifier
 */
export function refusal(file, specifier) {
  if (!specifier.startsWith(".")) {
    return file.startsWith("core/") ? NOT_IN_CORE[specifier] : undefined;
  }
  const target = posix.join(posix.dirname(file), specifier).replace(/\.js$/, ".ts");
  const [part, room] = file.split("/");
  const [otherPart, otherRoom] = target.split("/");
  if (part === "core") {
    if (otherPart !== "core") return "The kernel imports nothing from plugins, bin or test.";
    if (room !== otherRoom && !(CORE[room] ?? []).includes(otherRoom))
      return `core/${room} may import only ${(CORE[room] ?? []).join(", ") || "itself"}.`;
    return undefined;
  }
  if (part === "plugins") {
    if (otherPart === "bin" || otherPart === "test") return "A plugin imports nothing from bin or test.";
    if (otherPart === "core") {
      if (target === "core/index.ts" || AGENT_SIDE.includes(target)) return undefined;
      return "A plugin imports the kernel through its public face, core/index.js (or, to stay small in an agent, contracts/errors.js, lib/error-text.js, lib/nearest.js and lib/units.js).";
    }
    if (room === "builtins.ts" || otherRoom === room || otherRoom === "kit") return undefined;
    return "A plugin never imports another plugin's folder: they meet at slots, hooks and operations.";
  }
  if (otherPart === "test") return "bin imports nothing from test.";
  if (otherPart === "plugins" && !OF_BIN.test(target))
    return "bin imports the list of built-in plugins and the API client, no plugin.";
  return undefined;
}

/** The modules that a source text imports or re-exports, statically or not. */
export function importsOf(text) {
  const code = text.replace(/\/\*.*?\*\/|(?<=^|\s)\/\/[^\n]*/gs, "");
  const found = code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"\n]+)"/g);
  return [...found].map(([, name]) => name);
}

/** The source files below a folder that the rule is about. */
function sourcesIn(root) {
  return ["core", "plugins", "bin"].flatMap((part) =>
    existsSync(join(root, part))
      ? readdirSync(join(root, part), { recursive: true, encoding: "utf8" })
          .filter((file) => file.endsWith(".ts"))
          .map((file) => posix.join(part, file))
      : [],
  );
}

/** Every break of the rule and every import cycle below `root`, one line each. */
export function findBreaks(root) {
  const files = sourcesIn(root);
  const imports = new Map(files.map((file) => [file, importsOf(readFileSync(join(root, file), "utf8"))]));
  const breaks = files.flatMap((file) =>
    imports.get(file).flatMap((specifier) => {
      const why = refusal(file, specifier);
      return why === undefined ? [] : [`${file} imports ${specifier}: ${why}`];
    }),
  );
  return [...breaks, ...cyclesIn(imports).map((cycle) => `import cycle: ${cycle.join(" → ")}`)];
}

/** The import cycles, by Tarjan's algorithm for strongly connected components (1972). */
function cyclesIn(imports) {
  const state = new Map();
  const stack = [];
  const cycles = [];
  const targetsOf = (file) =>
    imports
      .get(file)
      .filter((it) => it.startsWith("."))
      .map((it) => posix.join(posix.dirname(file), it).replace(/\.js$/, ".ts"))
      .filter((it) => imports.has(it));
  function visit(file) {
    const own = { index: state.size, low: state.size, onStack: true };
    state.set(file, own);
    stack.push(file);
    for (const target of targetsOf(file)) {
      const other = state.get(target) ?? visit(target);
      if (other.onStack) own.low = Math.min(own.low, other.low);
    }
    if (own.low === own.index) {
      const component = stack.splice(stack.indexOf(file));
      for (const it of component) state.get(it).onStack = false;
      if (component.length > 1) cycles.push(component);
    }
    return own;
  }
  for (const file of imports.keys()) if (!state.has(file)) visit(file);
  return cycles;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const breaks = findBreaks(process.argv[2] ?? process.cwd());
  for (const line of breaks) console.error(line);
  process.exitCode = breaks.length === 0 ? 0 : 1;
}
