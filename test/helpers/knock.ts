import { request } from "node:http";

export interface Knocker {
  /** What came back: a status, or the message of an error. Grows. */
  readonly outcomes: readonly string[];
  stop(): Promise<void>;
}

/** Asks without pause, each time over a new connection, until told to stop. */
export function knock(where: { port: number } | { socketPath: string }): Knocker {
  const outcomes: string[] = [];
  let isOver = false;
  const ask = () =>
    new Promise<void>((resolve) => {
      const asked = request({ ...where, host: "127.0.0.1", path: "/healthz", agent: false }, (response) => {
        outcomes.push(String(response.statusCode));
        response.resume().once("close", resolve);
      });
      asked.once("error", (error) => {
        outcomes.push(error.message);
        resolve();
      });
      asked.end();
    });
  const done = (async () => {
    while (!isOver) await ask();
  })();
  return {
    outcomes,
    async stop() {
      isOver = true;
      await done;
    },
  };
}
