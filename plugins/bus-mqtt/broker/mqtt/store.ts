import { createGroupCommit } from "../../../kit/sqlite/group-commit.js";
import type { OpenDatabase } from "../../../kit/sqlite/open-database.js";
import type { MqttTables } from "./tables.js";

/** `bus.db` as `openDatabase` opens it, of whose tables these are some. */
export type MqttDatabase = Pick<OpenDatabase<MqttTables>, "tables" | "ready" | "sync">;

export interface MqttStore {
  readonly tables: MqttTables;
  /** Resolves when what `act` has written outlives a loss of power. */
  write(act: (tables: MqttTables) => void): Promise<void>;
}

/** Writes of one turn of the event loop share a transaction and a sync of the disk. */
export function createMqttStore(database: MqttDatabase): MqttStore {
  const commits = createGroupCommit<(tables: MqttTables) => void, void>({
    write(acts) {
      const tables = database.ready();
      return tables.transaction(() => acts.map((act) => act(tables)));
    },
    sync: database.sync,
    needsSync: () => true,
  });
  return {
    get tables() {
      return database.tables;
    },
    write: (act) => commits.add(act),
  };
}
