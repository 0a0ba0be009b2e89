/** A terminal that is redrawn as a whole. */
export interface Screen {
  readonly rows: number;
  readonly columns: number;
  /** Replaces what is shown by these lines; too long lines and too many lines are cut. */
  draw(lines: readonly string[]): void;
  /** Restores the terminal. Safe to call twice. */
  close(): void;
}

export interface ScreenEvents {
  /** A key was pressed: its character, or `interrupt` for Ctrl-C and for signals that end programs. */
  key(key: string): void;
  resized(): void;
}

// Escape sequences of ECMA-48 and, with "?", of DEC terminals; all terminals in use understand them.
const [ALTERNATE, MAIN] = ["\u001b[?1049h", "\u001b[?1049l"];
const [HIDE_CURSOR, SHOW_CURSOR] = ["\u001b[?25l", "\u001b[?25h"];
const [CUT_LINES, WRAP_LINES] = ["\u001b[?7l", "\u001b[?7h"];
const [HOME, CLEAR_LINE, CLEAR_BELOW] = ["\u001b[H", "\u001b[K", "\u001b[J"];

/** The size that is assumed when a terminal does not report one. */
const [UNKNOWN_ROWS, UNKNOWN_COLUMNS] = [24, 80];

const ENDING_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Takes over the terminal. If `stdin` is not a terminal there are no keys, only signals. */
export function openScreen(
  stdout: NodeJS.WriteStream,
  stdin: NodeJS.ReadStream,
  { key, resized }: ScreenEvents,
): Screen {
  let closed = false;
  const interrupt = () => key("interrupt");
  // Several characters are one special key, such as an arrow, or several keys that were typed fast.
  const onData = (text: string) => {
    for (const it of text.startsWith("\u001b") ? [text] : text) key(it === "\u0003" ? "interrupt" : it);
  };

  function close() {
    if (closed) return;
    closed = true;
    process.off("exit", close);
    for (const signal of ENDING_SIGNALS) process.off(signal, interrupt);
    stdout.off("resize", resized);
    if (stdin.isTTY) stdin.off("data", onData).off("end", interrupt).setRawMode(false).pause();
    stdout.write(WRAP_LINES + SHOW_CURSOR + MAIN);
  }

  process.once("exit", close);
  for (const signal of ENDING_SIGNALS) process.on(signal, interrupt);
  stdout.on("resize", resized);
  if (stdin.isTTY) stdin.setRawMode(true).setEncoding("utf8").on("data", onData).on("end", interrupt);
  stdout.write(ALTERNATE + HIDE_CURSOR + CUT_LINES);

  return {
    get rows() {
      return stdout.rows || UNKNOWN_ROWS;
    },
    get columns() {
      return stdout.columns || UNKNOWN_COLUMNS;
    },
    draw(lines) {
      if (closed) return;
      // One write over the old content, without clearing it first, so that nothing flickers.
      const shown = lines.slice(0, stdout.rows || UNKNOWN_ROWS).map((line) => line + CLEAR_LINE);
      stdout.write(HOME + shown.join("\r\n") + CLEAR_BELOW);
    },
    close,
  };
}
