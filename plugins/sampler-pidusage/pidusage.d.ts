/** As much of pidusage 4 as is used. */
declare module "pidusage" {
  export interface Status {
    pid: number;
    ppid: number;
    /** User and system time of the process itself, in milliseconds. */
    ctime: number;
    /** How long ago it began, in milliseconds. */
    elapsed: number;
    /** Resident, in bytes. */
    memory: number;
    /** When it was read, by the wall clock. */
    timestamp: number;
  }
  /** `null` for a process that is gone. Rejects for a single pid that is gone. */
  export default function pidusage(
    pids: number[],
    options: { maxage: number },
  ): Promise<Record<number, Status | null | undefined>>;
}
