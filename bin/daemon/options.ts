/** The options of `start`. Paths are absolute. */
export interface DaemonOptions {
  home: string;
  /** `--config`. */
  config?: string;
  /** Where to search for a config without `--config`. */
  cwd: string;
  port?: number;
  fresh: boolean;
}
