/** How this daemon was asked for. Absolute paths. */
export interface DaemonOptions {
  home: string;
  /** `--config`. */
  config?: string;
  /** Where a config is searched for when there is no `--config`. */
  cwd: string;
  port?: number;
  fresh: boolean;
}
