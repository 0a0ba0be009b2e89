import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "libsql";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isOpenStarryError, type StoredAgent, systemClock } from "../../../../core/index.js";
import { createSqliteJournal } from "../../../../plugins/journal-sqlite/sqlite-journal.js";
import { storedAgentFixture } from "../../../contract/index.js";
import { seeded } from "../../../helpers/seeded.js";

const folders: string[] = [];
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-damage-"));
  folders.push(folder);
  return folder;
}
let dir: string;
beforeEach(() => {
  dir = makeFolder();
});
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

const problems: (string | undefined)[] = [];
const subject = (dataDir = dir) =>
  createSqliteJournal({
    dataDir,
    clock: systemClock,
    maxEvents: 1_000,
    onProblem: (problem) => problems.push(problem),
  });
const created = (agentId: string) => ({
  type: "agent.created" as const,
  at: "2026-01-01T00:00:00Z",
  agent_id: agentId,
  data: {},
});
const idsOf = (agents: StoredAgent[]) => agents.map(({ agent }) => agent.agent_id);

/** A good journal of records of many sizes, and what is in it. */
async function goodJournal(): Promise<{ bytes: Buffer; agents: StoredAgent[] }> {
  const sqlite = subject();
  await sqlite.start();
  for (let index = 0; index < 12; index++) {
    const stored = { ...storedAgentFixture(`agent-${index}`), params: { question: "x".repeat(index * 500) } };
    await sqlite.journal.append({ put: [stored], events: [created(`agent-${index}`)] });
  }
  const { agents } = await sqlite.journal.load();
  await sqlite.stop();
  return { bytes: readFileSync(join(dir, "journal.db")), agents };
}

/**
 * Opens these bytes as a journal and uses it. Nothing may be lost: the file is refused and left as it is, or
 * every agent is there as it was, or is told to be in quarantine.
 */
async function open(bytes: Buffer, before: StoredAgent[]): Promise<"refused" | "quarantined" | "sound"> {
  const folder = makeFolder();
  const path = join(folder, "journal.db");
  writeFileSync(path, bytes);
  const sqlite = subject(folder);
  try {
    await sqlite.start();
  } catch (error) {
    expect(error).toMatchObject({ code: "home_unusable", message: expect.stringContaining(path) });
    expect(error).toHaveProperty("hint", expect.stringMatching(/backup|newer daemon/));
    expect(readFileSync(path).equals(bytes)).toBe(true);
    return "refused";
  }
  let loaded: Awaited<ReturnType<typeof sqlite.journal.load>>;
  try {
    loaded = await sqlite.journal.load();
  } catch (error) {
    // Its shape was sound, and what it should hold is not all there: the daemon does not start on it.
    expect(error).toMatchObject({ code: "journal_unavailable", hint: expect.stringContaining("backup") });
    await sqlite.stop();
    return "refused";
  }
  const { agents, quarantined } = loaded;
  const keys = quarantined.map(({ key }) => key);
  expect([...idsOf(agents), ...keys].sort()).toEqual(idsOf(before).sort());
  for (const stored of agents) expect(before).toContainEqual(stored);
  await sqlite.journal.events({ after: 0, limit: 100 });
  await sqlite.journal.runs("agent-1", 10);
  await sqlite.journal.append({ put: [storedAgentFixture("new")], events: [created("new")] });
  await sqlite.stop();
  return quarantined.length > 0 ? "quarantined" : "sound";
}

describe("a journal whose bytes were changed loses no agent without a word", () => {
  const SEED = 20_260_101;
  const ROUNDS = 60;
  test.each([
    [
      "cut short",
      (good: Buffer, _: () => number, round: number) =>
        good.subarray(0, Math.floor((good.length * round) / ROUNDS)),
    ],
    [
      "one byte changed",
      (good: Buffer, random: () => number) => {
        const bytes = Buffer.from(good);
        bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
        return bytes;
      },
    ],
    [
      "64 bytes of noise",
      (good: Buffer, random: () => number) => {
        const bytes = Buffer.from(good);
        const at = Math.floor(random() * (bytes.length - 64));
        for (let index = at; index < at + 64; index++) bytes[index] = Math.floor(random() * 256);
        return bytes;
      },
    ],
    [
      "a sector of zeros",
      (good: Buffer, random: () => number) => {
        const at = Math.floor((random() * good.length) / 512) * 512;
        return Buffer.from(good).fill(0, at, at + 512);
      },
    ],
  ])(`%s, ${ROUNDS} times`, async (_, damage) => {
    const { bytes, agents } = await goodJournal();
    const random = seeded(SEED);
    const outcomes = { refused: 0, quarantined: 0, sound: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      outcomes[await open(damage(bytes, random, round), agents)]++;
      rmSync(folders.pop() ?? "", { recursive: true });
    }
    expect(outcomes.refused + outcomes.quarantined).toBeGreaterThan(5);
  });
});

test("a record that was mended by hand is read when its checksum is taken away", async () => {
  await goodJournal();
  const database = new Database(join(dir, "journal.db"));
  const [row] = database.prepare("SELECT record FROM agents WHERE agent_id = 'agent-0'").all() as [
    { record: string },
  ];
  const mended = row.record.replace('"restarts":0', '"restarts":7');
  database.prepare("UPDATE agents SET record = ? WHERE agent_id = 'agent-0'").run(mended);
  const sqlite = subject();
  await sqlite.start();
  expect((await sqlite.journal.load()).quarantined).toEqual([
    { key: "agent-0", error: expect.stringContaining("checksum") },
  ]);
  database.exec("UPDATE agents SET checksum = NULL WHERE agent_id = 'agent-0'");
  expect((await sqlite.journal.load()).agents[0]?.agent.restarts).toBe(7);
  await sqlite.stop();
});

test("a journal of version 1, without checksums, is taken over", async () => {
  const { agents } = await goodJournal();
  const database = new Database(join(dir, "journal.db"));
  database.exec("ALTER TABLE agents DROP COLUMN checksum; PRAGMA user_version = 1");
  database.close();
  const sqlite = subject();
  await sqlite.start();
  await sqlite.journal.append({ put: [storedAgentFixture("new")] });
  expect(idsOf((await sqlite.journal.load()).agents)).toEqual([...idsOf(agents), "new"]);
  await sqlite.stop();
});

describe("files that are removed while the journal is open are made anew, with all that was in them", () => {
  /** What is on the disk, as a daemon finds it that comes after a kill. */
  async function onDisk(): Promise<string[]> {
    const copy = makeFolder();
    for (const name of ["journal.db", "journal.db-wal"]) {
      const path = join(dir, name);
      if (existsSync(path)) writeFileSync(join(copy, name), readFileSync(path));
    }
    const sqlite = subject(copy);
    await sqlite.start();
    const { agents } = await sqlite.journal.load();
    await sqlite.stop();
    return idsOf(agents);
  }

  test.each([
    ["the database", ["journal.db"]],
    ["the log", ["journal.db-wal"]],
    ["all of them", ["journal.db", "journal.db-wal", "journal.db-shm"]],
  ])("%s", async (_, names) => {
    const sqlite = subject();
    await sqlite.start();
    await sqlite.journal.append({ put: [storedAgentFixture("a")], events: [created("a")] });
    const path = join(dir, "journal.db");
    for (let round = 0; round < 3; round++) {
      for (const name of names) rmSync(join(dir, name));
      await sqlite.journal.append({ put: [storedAgentFixture(`b${round}`)], events: [created("b")] });
      expect((await onDisk()).length).toBe(round + 2);
      expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    }
    // Also when nothing is written any more.
    for (const name of names) rmSync(join(dir, name));
    await sqlite.stop();
    expect(await onDisk()).toEqual(["a", "b0", "b1", "b2"]);
  });

  test("one in quarantine stays there", async () => {
    await goodJournal();
    const database = new Database(join(dir, "journal.db"));
    database.exec("UPDATE agents SET record = '{' WHERE agent_id = 'agent-3'");
    database.close();
    const sqlite = subject();
    await sqlite.start();
    await sqlite.journal.load();
    rmSync(join(dir, "journal.db"));
    await sqlite.journal.append({ put: [storedAgentFixture("new")] });
    await expect(sqlite.journal.append({ put: [storedAgentFixture("agent-3")] })).rejects.toThrow(
      /quarantine/,
    );
    await sqlite.stop();
  });

  test("but not over another file that lies there", async () => {
    const sqlite = subject();
    await sqlite.start();
    await sqlite.journal.append({ put: [storedAgentFixture("a")] });
    const path = join(dir, "journal.db");
    rmSync(path);
    writeFileSync(path, "somebody's backup");
    problems.length = 0;
    for (let round = 0; round < 2; round++) {
      await expect(sqlite.journal.append({ put: [storedAgentFixture("b")] })).rejects.toMatchObject({
        code: "journal_unavailable",
        message: expect.stringContaining(path),
        hint: expect.stringContaining("move it away"),
      });
    }
    expect(readFileSync(path, "utf8")).toBe("somebody's backup");
    renameSync(path, join(dir, "backup"));
    await sqlite.journal.append({ put: [storedAgentFixture("b")] });
    expect(await onDisk()).toEqual(["a", "b"]);
    expect(problems).toEqual([expect.stringContaining("replaced"), undefined]);
    await sqlite.stop();
  });
});

test("what cannot be written at the start is refused with a hint, whatever lies there", async () => {
  await goodJournal();
  const path = join(dir, "journal.db");
  rmSync(`${path}-wal`, { force: true });
  mkdirSync(`${path}-wal`);
  const error: unknown = await subject()
    .start()
    .catch((it: unknown) => it);
  expect(isOpenStarryError(error) && [error.code, error.message]).toEqual([
    "home_unusable",
    expect.stringContaining("journal.db-wal is not a regular file"),
  ]);
  rmSync(path);
  rmSync(`${path}-wal`, { recursive: true });
  mkdirSync(path);
  chmodSync(path, 0o755);
  await expect(subject().start()).rejects.toMatchObject({ code: "home_unusable" });
  expect(statSync(path).isDirectory()).toBe(true);
});
