import { request } from "node:http";

/** So much of an answer's body is taken and thrown away, for the sake of a server that has to get rid of it. */
const MAX_BODY_BYTES = 64 * 1024;

/**
 * Asks once, over a connection of its own. What counts is the status: redirects are not followed, the body is
 * not looked at. Resolves with what is wrong with the answer; never rejects. `signal` cuts it short.
 */
export function ask(
  { host, port, path }: { host: string; port: number; path: string },
  signal: AbortSignal,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    const what = `GET http://${host.includes(":") ? `[${host}]` : host}:${port}${path}`;
    const headers = { accept: "*/*", "user-agent": "openstarry-daemon", connection: "close" };
    const asked = request({ host, port, path, headers, agent: false, signal });
    // Also what comes after the answer: the other end may break off.
    asked.on("error", ({ code, message }: NodeJS.ErrnoException) =>
      resolve(`${what} was not answered (${code ?? message})`),
    );
    asked.on("response", (response) => {
      const { statusCode = 0 } = response;
      resolve(statusCode >= 200 && statusCode < 400 ? undefined : `${what} answered ${statusCode}`);
      let bytes = 0;
      response.on("error", () => {});
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_BODY_BYTES) response.destroy();
      });
    });
    asked.end();
  });
}
