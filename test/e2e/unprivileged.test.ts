import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import { COMMAND } from "../helpers/daemon.js";
import { processesOf, seeProcess, uidOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

/** A daemon that is not root: only root can make one, and give it a part of the cgroups. */
const nobody = /^nobody:[^:]*:(\d+):(\d+):/m.exec(readFileSync("/etc/passwd", "utf8"));
const [uid, gid] = [Number(nobody?.[1]), Number(nobody?.[2])];
const asNobody = ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--"];
const isRoot = process.getuid?.() === 0 && nobody !== null && mayRead(COMMAND) && mayRead(process.execPath);
if (!isRoot) console.warn("not tried: a daemon of user nobody (that takes root, and a checkout it may read)");

function mayRead(file: string): boolean {
  return spawnSync(asNobody[0] ?? "", [...asNobody.slice(1), "test", "-r", file]).status === 0;
}

const SLEEP = "sleep 100000";
const cgroups = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(
  readFileSync("/proc/self/mountinfo", "utf8"),
)?.[1];
const delegated =
  isRoot && cgroups ? delegate(join(cgroups, `openstarry-delegated-${process.pid}`)) : undefined;
if (isRoot && !delegated) console.warn("not tried: a delegated cgroup (none can be made here)");

function delegate(group: string): string | undefined {
  try {
    mkdirSync(group);
    for (const file of ["", "cgroup.procs"]) chownSync(join(group, file), uid, gid);
    return group;
  } catch {
    return undefined;
  }
}

let project: string | undefined;
let client: Client | undefined;
afterEach(async () => {
  if (!project) return;
  const home = join(project, "home");
  // Only root can end what its daemon could not.
  for (const { pid, command } of processesOf(home)) if (command === SLEEP) process.kill(pid, "SIGKILL");
  await client?.daemon.stop({ agents: "stop" }).catch(() => {});
  client?.close();
  const left = () => processesOf(home);
  const gone = waitFor(() => left().length === 0, {
    timeoutMs: 20_000,
    what: "the end of all",
    diagnose: left,
  });
  await gone.finally(() => {
    for (const { pid } of left()) process.kill(pid, "SIGKILL");
  });
  rmSync(project, { recursive: true, force: true });
});
afterAll(() => {
  if (delegated) rmdirSync(delegated);
});

/** Has a child that has become root for good: what an agent gets that may use sudo. */
function makeProject(withCgroups: boolean): string {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-nobody-"));
  chmodSync(folder, 0o755);
  mkdirSync(join(folder, "home"), { mode: 0o700 });
  chownSync(join(folder, "home"), uid, gid);
  mkdirSync(join(folder, "templates"));
  const tool = join(folder, "become-root");
  copyFileSync(spawnSync("sh", ["-c", "command -v setpriv"], { encoding: "utf8" }).stdout.trim(), tool);
  chmodSync(tool, 0o4755);
  const script = `${tool} --reuid=0 --regid=0 --clear-groups ${SLEEP} & echo "$!" >"$OPENSTARRY_RESULT_FILE"; wait`;
  const stop = { grace: "200ms" };
  const template = {
    template_id: "Sudoer",
    command: "sh",
    args: ["-c", script],
    stop,
    restart: { policy: "never" },
  };
  writeFileSync(join(folder, "templates/Sudoer.json"), JSON.stringify(template));
  const config = { templates: ["./templates"], plugins: [["spawner-process", { cgroups: withCgroups }]] };
  writeFileSync(join(folder, "openstarry.config.json"), JSON.stringify(config));
  return folder;
}

/** Starts a daemon of nobody's, in that cgroup where one is given. */
function start(folder: string, group?: string): Client {
  const join_ = group === undefined ? "" : `echo 0 >${group}/cgroup.procs && `;
  const home = join(folder, "home");
  const words = ["--config", join(folder, "openstarry.config.json"), "--home", home, "--port", "0"];
  const command = [...asNobody, process.execPath, COMMAND, "start", ...words];
  const run = spawnSync("sh", ["-c", `${join_}exec "$@"`, "sh", ...command], {
    cwd: "/",
    encoding: "utf8",
    env: { PATH: process.env["PATH"], HOME: folder },
  });
  if (run.status !== 0) throw new Error(`start: ${run.stderr}`);
  expect(uidOf(lockHolder(home) ?? 0)).toBe(uid);
  const { port } = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
  // By address: a client takes no token file that is another user's.
  const token = readFileSync(join(home, "token"), "utf8").trim();
  return createClient({ url: `http://127.0.0.1:${port}`, token });
}

/** An agent of whose tree the daemon's user may not signal all. */
async function sudoer(of: Client): Promise<{ pid: number; root: number; containment: string | undefined }> {
  const { pid = 0, containment } = await of.agents.create({ agent_id: "sudoer", template_id: "Sudoer" });
  const root = await waitFor(
    () => processesOf(join(project ?? "", "home")).find((it) => it.ppid === pid && it.command === SLEEP),
    { what: "the child" },
  );
  expect([uidOf(pid), uidOf(root.pid)]).toEqual([uid, 0]);
  return { pid, root: root.pid, containment };
}

test.runIf(isRoot)(
  "who cannot be ended is named, keeps the record stopping, and no new run begins",
  async () => {
    project = makeProject(false);
    client = start(project);
    const { pid, root, containment } = await sudoer(client);
    expect(containment).toBe("best_effort");
    await expect(client.agents.remove("sudoer")).rejects.toMatchObject({
      code: "tree_survived",
      message: expect.stringContaining(`sleep (pid ${root})`),
    });
    expect(seeProcess(pid)).toBeUndefined();
    expect(await client.agents.get("sudoer")).toMatchObject({
      state: "stopping",
      reason: `these processes could not be killed: sleep (${root})`,
    });
    process.kill(root, "SIGKILL");
    const gone = waitFor(async () => (await client?.agents.list())?.items.length === 0, {
      timeoutMs: 40_000,
      what: "the record to go",
    });
    await gone;
  },
  60_000,
);

test.runIf(delegated)(
  "in a cgroup that was delegated to it, an ordinary user's daemon contains in full",
  async () => {
    project = makeProject(true);
    client = start(project, delegated);
    const { pid, root, containment } = await sudoer(client);
    expect(containment).toBe("full");
    const { last_exit } = await client.agents.remove("sudoer");
    expect(last_exit?.cause).toBe("stop_request");
    // By its group even what its user may not signal.
    expect([seeProcess(pid), seeProcess(root)]).toEqual([undefined, undefined]);
  },
  60_000,
);
