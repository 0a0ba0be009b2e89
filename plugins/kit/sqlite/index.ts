// A database file of a plugin's own, published as `openstarry-daemon/kit/sqlite`. Loads libsql when a file is opened.
export type { DatabaseKind } from "./database-kind.js";
export { hintFor, isDamage, isDiskFull, unavailable } from "./failures.js";
export { createGroupCommit, type GroupCommit, type GroupCommitOptions } from "./group-commit.js";
export type { LogSync } from "./log-sync.js";
export { type OpenDatabase, openDatabase } from "./open-database.js";
