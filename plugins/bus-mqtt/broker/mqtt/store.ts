import { createGroupCommit } from "../../../kit/sqlite/group-commit.js";
import type { OpenDatabase } from "../../../kit/sqlite/open-database.js";
import type { MqttTables } from "./tables.js";

/** The open `bus.db`, as far as it concerns the tables of MQTT. */
export type MqttDatabase = Pick<OpenDatabase<MqttTables>, "tables" | "ready" | "sync">;

export interface MqttStore {
  readonly tables: MqttTables;
  /** Resolves when the changes of `act` are synced to the disk. */
  write(act: (tables: MqttTables) => void): Promise<void>;
}

/** Creates the store. Writes of one turn of the event loop share a transaction and a disk sync. */
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
