import { spawn } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "libsql";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type StoredAgent, systemClock } from "../../../../core/index.js";
import journalSqlite from "../../../../plugins/journal-sqlite/index.js";
import { createSqliteJournal } from "../../../../plugins/journal-sqlite/sqlite-journal.js";
import { createGroupCommit } from "../../../../plugins/kit/sqlite/group-commit.js";
import { storedAgentFixture, testJournal } from "../../../contract/index.js";
import { waitFor } from "../../../helpers/wait-for.js";

let dir: string;
const folders: string[] = [];

function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-journal-"));
  folders.push(folder);
  return folder;
}

beforeEach(() => {
  dir = makeFolder();
});
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function subject(dataDir: string, maxEvents = 1_000, onProblem?: (problem: string | undefined) => void) {
  return {
    ...createSqliteJournal({ dataDir, clock: systemClock, maxEvents, onProblem }),
    reopen: () => subject(dataDir, maxEvents),
  };
}

/** A started journal with one agent, closed again. */
async function writtenJournal(): Promise<string> {
  const sqlite = subject(dir);
  await sqlite.start();
  await sqlite.journal.append({ put: [storedAgentFixture("a")] });
  await sqlite.stop();
  return join(dir, "journal.db");
}

const modeOf = (path: string) => (lstatSync(path).mode & 0o777).toString(8);

testJournal({
  test,
  factory: ({ maxEvents }) => subject(makeFolder(), maxEvents),
  capabilities: { durable: true, prunes: true },
});

describe("a file that cannot be used is refused and left as it is", () => {
  async function assertRefused(path: string, what: RegExp) {
    const before = readFileSync(path);
    const error = await subject(dir)
      .start()
      .catch((it: unknown) => it);
    expect(error).toMatchObject({ code: "home_unusable", message: expect.stringMatching(what) });
    expect((error as Error).message).toContain(path);
    expect(error).toHaveProperty("hint", expect.stringMatching(/backup|newer daemon/));
    expect(readFileSync(path).equals(before)).toBe(true);
  }

  test("not a database", async () => {
    const path = join(dir, "journal.db");
    writeFileSync(path, "this was a shopping list\n".repeat(400));
    await assertRefused(path, /cannot be read as a journal: file is not a database/);
  });

  test("no bytes at all", async () => {
    const path = join(dir, "journal.db");
    writeFileSync(path, "");
    await assertRefused(path, /is empty/);
  });

  test("another program's database", async () => {
    const path = join(dir, "journal.db");
    const other = new Database(path);
    other.exec("CREATE TABLE recipes (name TEXT)");
    other.close();
    await assertRefused(path, /not a journal/);
  });

  test("a newer schema", async () => {
    const path = await writtenJournal();
    const newer = new Database(path);
    newer.exec("PRAGMA user_version = 7; PRAGMA wal_checkpoint(TRUNCATE)");
    newer.close();
    await assertRefused(path, /schema version 7; this daemon knows versions up to 2/);
  });

  test("cut short", async () => {
    const path = await writtenJournal();
    truncateSync(path, statSync(path).size - 4_096);
    await assertRefused(path, /malformed|damaged/);
  });

  test("overwritten in the middle", async () => {
    const path = await writtenJournal();
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4_096, 3 * 4_096);
    writeFileSync(path, bytes);
    await assertRefused(path, /malformed|damaged/);
  });

  test("a symbolic link", async () => {
    const target = join(makeFolder(), "target");
    writeFileSync(target, "");
    symlinkSync(target, join(dir, "journal.db"));
    await expect(subject(dir).start()).rejects.toMatchObject({ code: "home_unusable" });
    expect(readFileSync(target, "utf8")).toBe("");
  });

  test("gone, while its write-ahead log is there", async () => {
    await writtenJournal();
    rmSync(join(dir, "journal.db"));
    writeFileSync(join(dir, "journal.db-wal"), "frames");
    await expect(subject(dir).start()).rejects.toMatchObject({
      code: "home_unusable",
      message: expect.stringContaining("is missing while journal.db-wal"),
    });
    expect(existsSync(join(dir, "journal.db"))).toBe(false);
  });

  test("in a folder that is not there", async () => {
    const missing = join(dir, "missing");
    await expect(subject(missing).start()).rejects.toMatchObject({
      code: "home_unusable",
      message: expect.stringContaining(missing),
    });
    expect(existsSync(missing)).toBe(false);
  });
});

test("an unfinished first start leaves no trace", async () => {
  writeFileSync(join(dir, "journal.db.new"), "half of a database");
  const sqlite = subject(dir);
  await sqlite.start();
  await sqlite.journal.append({ put: [storedAgentFixture("a")] });
  await sqlite.stop();
  expect(readdirSync(dir).filter((name) => name.includes(".new"))).toEqual([]);
});

describe("a damaged record", () => {
  const good = storedAgentFixture("good");
  const damaged: Record<string, string> = {
    torn: '{"agent":{"agent_id":"torn"',
    stranger: JSON.stringify(good),
    stateless: JSON.stringify({ ...good, agent: { ...good.agent, agent_id: "stateless", state: "zombie" } }),
    init: JSON.stringify({ ...good, agent: { ...good.agent, agent_id: "init", pid: 1 } }),
    bare: JSON.stringify({ ...good, agent: { ...good.agent, agent_id: "bare" }, template: {} }),
  };

  async function withDamage() {
    const sqlite = subject(dir);
    await sqlite.start();
    await sqlite.journal.append({ put: [good] });
    const direct = new Database(join(dir, "journal.db"));
    const insert = direct.prepare("INSERT INTO agents (agent_id, record) VALUES (?, ?)");
    for (const [agentId, record] of Object.entries(damaged)) insert.run(agentId, record);
    return sqlite;
  }

  test("is reported, and the sound ones are loaded", async () => {
    const sqlite = await withDamage();
    const { agents, quarantined } = await sqlite.journal.load();
    expect(agents).toEqual([good]);
    expect(quarantined.map(({ key }) => key)).toEqual(Object.keys(damaged));
    expect(Object.fromEntries(quarantined.map(({ key, error }) => [key, error]))).toMatchObject({
      stranger: 'it is about "good"',
      stateless: expect.stringContaining("agent.state"),
      init: expect.stringContaining("agent.pid"),
      bare: expect.stringContaining("template"),
    });
    await sqlite.stop();
  });

  test("is not written over, and does not fail others in the same commit", async () => {
    const sqlite = await withDamage();
    await sqlite.journal.load();
    const [refused, written] = await Promise.allSettled([
      sqlite.journal.append({ put: [storedAgentFixture("torn")] }),
      sqlite.journal.append({ put: [storedAgentFixture("fresh")] }),
    ]);
    expect(refused).toMatchObject({
      status: "rejected",
      reason: { code: "journal_unavailable", message: expect.stringContaining("quarantine") },
    });
    expect(written.status).toBe("fulfilled");
    const again = await sqlite.journal.load();
    expect(again.quarantined).toHaveLength(Object.keys(damaged).length);
    const row = new Database(join(dir, "journal.db"))
      .prepare("SELECT record FROM agents WHERE agent_id = ?")
      .all("torn");
    expect(row).toEqual([{ record: damaged["torn"] }]);
    await sqlite.stop();
  });

  test("can be forgotten when that is asked for", async () => {
    const sqlite = await withDamage();
    await sqlite.journal.load();
    await sqlite.journal.append({ forget: ["torn"] });
    await sqlite.journal.append({ put: [storedAgentFixture("torn")] });
    expect((await sqlite.journal.load()).agents.map(({ agent }) => agent.agent_id)).toEqual(["good", "torn"]);
    await sqlite.stop();
  });

  test("among the events is told as a gap", async () => {
    const sqlite = await withDamage();
    await sqlite.journal.append({
      events: [{ type: "daemon.ready", at: "2026-01-01T00:00:00Z", data: {} as never }],
    });
    new Database(join(dir, "journal.db")).exec("INSERT INTO events (record) VALUES ('{torn')");
    const { events, gap } = await sqlite.journal.events({ after: 0, limit: 10 });
    expect(events).toHaveLength(1);
    expect(gap).toBe(true);
    await sqlite.stop();
  });
});

describe("files", () => {
  test("are the daemon's alone, whatever the umask", async () => {
    const before = process.umask(0);
    try {
      const sqlite = subject(dir);
      await sqlite.start();
      await sqlite.journal.append({ put: [storedAgentFixture("a")] });
      await sqlite.journal.secrets.set("a", { KEY: "value" });
      expect(Object.fromEntries(readdirSync(dir).map((name) => [name, modeOf(join(dir, name))]))).toEqual({
        agents: "700",
        "journal.db": "600",
        "journal.db-shm": "600",
        "journal.db-wal": "600",
      });
      expect(modeOf(join(dir, "agents/a"))).toBe("700");
      expect(modeOf(join(dir, "agents/a/env.json"))).toBe("600");
      await sqlite.stop();
    } finally {
      process.umask(before);
    }
  });

  test("stop folds the write-ahead log into the file", async () => {
    const path = await writtenJournal();
    const wal = statSync(`${path}-wal`, { throwIfNoEntry: false });
    expect(wal?.size ?? 0).toBe(0);
    expect(readFileSync(path, "latin1")).toContain("Sample_v1");
  });
});

describe("values of single agents", () => {
  async function started() {
    const sqlite = subject(dir);
    await sqlite.start();
    await sqlite.journal.append({ put: [storedAgentFixture("a")] });
    return sqlite;
  }

  test("are never in journal.db, and leave nothing behind when forgotten", async () => {
    const sqlite = await started();
    const canary = "canary-7c41b2";
    await sqlite.journal.secrets.set("a", { TOKEN: canary });
    await sqlite.journal.append({ put: [storedAgentFixture("a", { state: "running" })] });
    for (const name of readdirSync(dir).filter((it) => it.startsWith("journal.db"))) {
      expect(readFileSync(join(dir, name), "latin1")).not.toContain(canary);
    }
    await sqlite.journal.append({ forget: ["a"] });
    expect(readdirSync(join(dir, "agents"))).toEqual([]);
    await sqlite.stop();
  });

  test("go before the folder that others keep things in", async () => {
    const sqlite = await started();
    await sqlite.journal.secrets.set("a", { KEY: "value" });
    mkdirSync(join(dir, "agents/a/logs"));
    await sqlite.journal.append({ forget: ["a"] });
    expect(readdirSync(join(dir, "agents/a"))).toEqual(["logs"]);
    await sqlite.stop();
  });

  test("a link in their place is replaced or refused, never followed", async () => {
    const sqlite = await started();
    const elsewhere = makeFolder();
    const target = join(elsewhere, "target.json");
    writeFileSync(target, '{"STOLEN":"x"}');
    mkdirSync(join(dir, "agents/a"), { recursive: true });
    symlinkSync(target, join(dir, "agents/a/env.json"));
    symlinkSync(target, join(dir, "agents/a/.env.json.tmp"));
    await expect(sqlite.journal.secrets.get("a")).rejects.toMatchObject({ code: "home_unusable" });
    await sqlite.journal.secrets.set("a", { KEY: "value" });
    expect(await sqlite.journal.secrets.get("a")).toEqual({ KEY: "value" });
    expect(readFileSync(target, "utf8")).toBe('{"STOLEN":"x"}');
    symlinkSync(elsewhere, join(dir, "agents/b"));
    await expect(sqlite.journal.secrets.set("b", { KEY: "value" })).rejects.toMatchObject({
      code: "home_unusable",
      message: expect.stringContaining("agents/b"),
    });
    expect(readdirSync(elsewhere)).toEqual(["target.json"]);
    await sqlite.stop();
  });

  test("an id that is no id reaches no path", async () => {
    const sqlite = await started();
    await expect(sqlite.journal.secrets.set("../a", { KEY: "value" })).rejects.toMatchObject({
      code: "input_invalid",
    });
    expect(await sqlite.journal.secrets.get("../a")).toEqual({});
    await sqlite.journal.append({ forget: ["../a", "svc:bus"] });
    expect(readdirSync(dir).sort()).toEqual(["journal.db", "journal.db-shm", "journal.db-wal"]);
    await sqlite.stop();
  });

  test("of agents that are gone are removed at the next load, and so is half a write", async () => {
    const sqlite = await started();
    await sqlite.journal.secrets.set("a", { KEY: "kept" });
    await sqlite.journal.secrets.set("gone", { KEY: "left by a crash" });
    writeFileSync(join(dir, "agents/a/.env.json.tmp"), '{"KEY":"half');
    await sqlite.journal.load();
    expect(readdirSync(join(dir, "agents"))).toEqual(["a"]);
    expect(readdirSync(join(dir, "agents/a"))).toEqual(["env.json"]);
    expect(await sqlite.journal.secrets.get("a")).toEqual({ KEY: "kept" });
    await sqlite.stop();
  });

  test("a damaged file is refused without a word of its content", async () => {
    const sqlite = await started();
    mkdirSync(join(dir, "agents/a"), { recursive: true });
    writeFileSync(join(dir, "agents/a/env.json"), '{"KEY": hunter2');
    const error = (await sqlite.journal.secrets.get("a").catch((it: unknown) => it)) as Error;
    expect(error).toMatchObject({ code: "home_unusable", message: expect.stringContaining("env.json") });
    expect(JSON.stringify([error.message, error.cause, error.stack])).not.toContain("hunter2");
    await sqlite.stop();
  });
});

/** Nothing has to be synced. */
function groupCommit(write: (batches: readonly number[]) => number[]) {
  return createGroupCommit<number, number>({ write, sync: async () => {}, needsSync: () => false });
}

describe("group commit", () => {
  test("what is written after a batch that is still being synced settles after it", async () => {
    const settled: string[] = [];
    let synced = () => {};
    const commit = createGroupCommit<string, string>({
      write: (batches) => [...batches],
      sync: () =>
        new Promise((resolve) => {
          synced = resolve;
        }),
      needsSync: (batch) => batch === "wish",
    });
    const note = (name: string) => commit.add(name).then(() => void settled.push(name));
    const wish = note("wish");
    await new Promise(setImmediate);
    const fact = note("fact");
    await new Promise(setImmediate);
    expect(settled).toEqual([]);
    synced();
    await Promise.all([wish, fact]);
    expect(settled).toEqual(["wish", "fact"]);
  });

  test("a sync that fails fails the batches that asked for it, and no other", async () => {
    const commit = createGroupCommit<string, string>({
      write: (batches) => [...batches],
      sync: async () => {
        throw new Error("the disk is gone");
      },
      needsSync: (batch) => batch === "wish",
    });
    const [wish, fact] = await Promise.allSettled([commit.add("wish"), commit.add("fact")]);
    expect(wish).toMatchObject({ status: "rejected", reason: new Error("the disk is gone") });
    expect(fact).toMatchObject({ status: "fulfilled", value: "fact" });
    expect(await commit.add("later")).toBe("later");
  });

  test("batches of one tick are written together, in order, the next tick's apart", async () => {
    const groups: number[][] = [];
    const commit = groupCommit((batches) => {
      groups.push([...batches]);
      return batches.map((batch) => batch * 10);
    });
    expect(await Promise.all([commit.add(1), commit.add(2), commit.add(3)])).toEqual([10, 20, 30]);
    expect(await commit.add(4)).toBe(40);
    expect(groups).toEqual([[1, 2, 3], [4]]);
  });

  test("what is added while a group is written goes with the next", async () => {
    const groups: number[][] = [];
    const later: Promise<number>[] = [];
    const commit = groupCommit((batches) => {
      groups.push([...batches]);
      if (groups.length === 1) later.push(commit.add(8), commit.add(9));
      return [...batches];
    });
    await commit.add(1);
    expect(await Promise.all(later)).toEqual([8, 9]);
    expect(groups).toEqual([[1], [8, 9]]);
  });

  test("one batch that the database refuses fails alone", async () => {
    const problems: (string | undefined)[] = [];
    const sqlite = subject(dir, 1_000, (problem) => problems.push(problem));
    await sqlite.start();
    const nameless = storedAgentFixture("x");
    (nameless.agent as { agent_id?: string }).agent_id = undefined;
    const bad = { put: [nameless], events: [eventOf("bad")] };
    const outcomes = await Promise.allSettled([
      sqlite.journal.append({ put: [storedAgentFixture("a")], events: [eventOf("a")] }),
      sqlite.journal.append(bad),
      sqlite.journal.append({ put: [storedAgentFixture("c")], events: [eventOf("c")] }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(outcomes[1]).toMatchObject({
      reason: { code: "journal_unavailable", cause: { code: expect.stringContaining("CONSTRAINT") } },
    });
    const { events } = await sqlite.journal.events({ after: 0, limit: 10 });
    expect(events.map(({ id, agent_id }) => [id, agent_id])).toEqual([
      [1, "a"],
      [2, "c"],
    ]);
    expect(problems).toEqual([expect.stringContaining("could not be written"), undefined]);
    await sqlite.stop();
  });

  test("a failure that lasts is told once, and so is its end", async () => {
    const problems: (string | undefined)[] = [];
    const sqlite = subject(dir, 1_000, (problem) => problems.push(problem));
    await sqlite.start();
    const intruder = new Database(join(dir, "journal.db"));
    intruder.exec("BEGIN IMMEDIATE");
    for (const name of ["a", "b"]) {
      await expect(sqlite.journal.append({ put: [storedAgentFixture(name)] })).rejects.toMatchObject({
        code: "journal_unavailable",
        hint: expect.stringContaining("another program"),
      });
    }
    expect(problems).toEqual([expect.stringContaining("locked")]);
    intruder.exec("ROLLBACK");
    await sqlite.journal.append({ put: [storedAgentFixture("c")] });
    expect(problems).toEqual([expect.stringContaining("locked"), undefined]);
    expect((await sqlite.journal.load()).agents.map(({ agent }) => agent.agent_id)).toEqual(["c"]);
    await sqlite.stop();
  });

  const eventOf = (agentId: string) => ({
    type: "agent.created" as const,
    at: "2026-01-01T00:00:00Z",
    agent_id: agentId,
    data: {},
  });
});

test("what was acknowledged survives kill -9, and no batch is there in part", async () => {
  const script = fileURLToPath(new URL("../../../fixtures/journal-appender.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", "jiti/register", script, dir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  await waitFor(() => output.split("\n").length > 300, {
    what: "300 acknowledged batches",
    timeoutMs: 20_000,
    diagnose: () => ({ exitCode: child.exitCode, lines: output.split("\n").length }),
  });
  const closed = new Promise((resolve) => child.once("close", resolve));
  child.kill("SIGKILL");
  await closed;
  const acknowledged = Number(output.slice(0, output.lastIndexOf("\n")).split("\n").at(-1));

  const sqlite = subject(dir, 1_000_000);
  await sqlite.start();
  const { agents } = await sqlite.journal.load();
  const { events } = await sqlite.journal.events({ after: 0, limit: 1_000_000 });
  const numbers = events.map(({ data }) => (data as unknown as { number: number }).number);
  expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => index + 1));
  expect(numbers.length).toBeGreaterThanOrEqual(acknowledged);
  expect((agents as [StoredAgent])[0].agent.restarts).toBe(numbers.length);
  await sqlite.stop();
}, 30_000);

test("the plugin keeps its file in the daemon's home", async () => {
  expect(journalSqlite.definition.name).toBe("journal-sqlite");
  const result = await journalSqlite.definition.options["~standard"].validate({});
  expect(result).toEqual({ value: { max_events: 100_000 } });
});
