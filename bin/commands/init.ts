import { existsSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CONFIG_NAMES } from "../../core/config/config-reader.js";
import { OpenStarryError } from "../../core/contracts/errors.js";

export type ConfigFormat = "ts" | "yaml" | "json";

export interface InitOptions {
  /** Absolute; created if missing. */
  folder: string;
  format: ConfigFormat;
  /** Overwrite existing files. */
  force?: boolean;
}

/**
 * Writes a starter config, a template and an agent that needs only Node. Answers the files, relative to `folder`.
 * Rejects with `input_invalid` and writes nothing if one of them exists, or another config that might be used instead.
 */
export async function initProject({
  folder,
  format,
  force = false,
}: InitOptions): Promise<{ files: string[] }> {
  const config = `openstarry.config.${format}`;
  const files: Record<string, string> = {
    [config]: CONFIGS[format],
    "templates/HelloAgent_v1.yaml": TEMPLATE,
    "agents/hello.mjs": AGENT,
  };
  refuseRivals(folder, config);
  const taken = Object.keys(files).filter((file) => existsSync(join(folder, file)));
  if (taken.length > 0 && !force) {
    throw new OpenStarryError("input_invalid", {
      detail: `${folder} already contains ${taken.join(", ")}; nothing was written`,
      hint: "choose another folder, or overwrite them with --force",
    });
  }
  for (const [file, content] of Object.entries(files)) {
    const path = join(folder, file);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
  await chmod(join(folder, "agents/hello.mjs"), 0o755);
  return { files: Object.keys(files) };
}

/** With two configs in a folder it would not be obvious which one is used. */
function refuseRivals(folder: string, config: string): void {
  const rivals = CONFIG_NAMES.filter((name) => name !== config && name !== "package.json");
  const found = rivals.filter((name) => existsSync(join(folder, name)));
  if (found.length === 0) return;
  throw new OpenStarryError("input_invalid", {
    detail: `${folder} already contains a config: ${found.join(", ")}; nothing was written`,
    hint: "keep it, or remove it first",
  });
}

const CONFIGS: Readonly<Record<ConfigFormat, string>> = {
  ts: `import { defineConfig } from "openstarry-daemon";

export default defineConfig({
  // Started in this order; the first is the master.
  agents: [{ agent_id: "hello", template_id: "HelloAgent_v1", params: { name: "world" } }],
  templates: ["./templates"],
  // plugins: [["http-api", { port: 5050 }]],
});
`,
  yaml: `# Started in this order; the first is the master.
agents:
  - agent_id: hello
    template_id: HelloAgent_v1
    params: { name: world }
templates: [./templates]
# plugins:
#   - [http-api, { port: 5050 }]
`,
  json: `{
  "agents": [{ "agent_id": "hello", "template_id": "HelloAgent_v1", "params": { "name": "world" } }],
  "templates": ["./templates"]
}
`,
};

const TEMPLATE = `template_id: HelloAgent_v1
description: "Greets someone every few seconds. Result: {greetings}, the number of greetings."
command: node
args: [agents/hello.mjs, --every, "{{params.every_s}}"]
cwd: ..
params:
  name: { type: string, minLength: 1, maxLength: 100, description: Who to greet. }
  every_s: { type: number, minimum: 0.1, default: 5, description: Seconds between greetings. }
restart: { policy: on-failure }
stop: { grace: 5s }
`;

const AGENT = `#!/usr/bin/env node
// An agent is any program. This one needs nothing but Node.
import { readFileSync, writeFileSync } from "node:fs";

const { OPENSTARRY_AGENT_ID: id, OPENSTARRY_PARAMS_FILE: paramsFile, OPENSTARRY_RESULT_FILE: resultFile } = process.env;

// The parameters: all of them are in this file; the template also passes some as arguments.
const { name } = JSON.parse(readFileSync(paramsFile, "utf8"));
const seconds = Number(process.argv[process.argv.indexOf("--every") + 1]);

let greetings = 0;
function greet() {
  greetings += 1;
  console.log(\`Hello, \${name}! This is \${id}, process \${process.pid}, greeting \${greetings}.\`);
}

greet();
setInterval(greet, seconds * 1000);

// Asked to stop: write the result and exit.
process.on("SIGTERM", () => {
  writeFileSync(resultFile, JSON.stringify({ greetings }));
  process.exit(0);
});
`;
