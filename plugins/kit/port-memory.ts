import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";

/** Remembers the port that was chosen last, so that addresses that agents have stay valid. */
export interface PortMemory {
  /** Returns the port, or 0 when none is known. */
  read(): number;
  /** Saves the port. Ignores errors: they must not stop a daemon that listens. */
  write(port: number): void;
}

/** Creates the memory in a file, which is replaced atomically. */
export function createPortMemory(path: string): PortMemory {
  return {
    read() {
      try {
        const { port } = JSON.parse(readFileSync(path, "utf8")) as { port?: unknown };
        return Number.isInteger(port) && Number(port) > 0 && Number(port) < 65_536 ? Number(port) : 0;
      } catch {
        // Missing or damaged: any port will do.
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
