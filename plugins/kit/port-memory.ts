import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";

/** Which port was taken last when any would do, so that addresses that agents hold stay true. */
export interface PortMemory {
  /** 0 when there is none. */
  read(): number;
  /** Does nothing where it cannot: a daemon that listens is worth more than its next one's port. */
  write(port: number): void;
}

export function createPortMemory(path: string): PortMemory {
  return {
    read() {
      try {
        const { port } = JSON.parse(readFileSync(path, "utf8")) as { port?: unknown };
        return Number.isInteger(port) && Number(port) > 0 && Number(port) < 65_536 ? Number(port) : 0;
      } catch {
        // Absent or damaged: then any port is as good.
        return 0;
      }
    },
    write(port) {
      const beside = `${path}.${randomBytes(6).toString("hex")}`;
      try {
        writeFileSync(beside, `${JSON.stringify({ port })}\n`, { flag: "wx", mode: 0o600 });
        renameSync(beside, path);
      } catch {
        rmSync(beside, { force: true });
      }
    },
  };
}
