import { connect } from "node:net";
import { z } from "zod";
import { definePlugin, probe } from "../../core/index.js";
import { loopbackHost, port } from "../kit/loopback.js";
import { pollingProbe } from "../kit/probe-loop.js";

/** The probe `tcp`: somebody accepts connections at a port. */
export default definePlugin({
  name: "probe-tcp",
  apiVersion: 1,
  provides: [probe],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(
      probe,
      pollingProbe(ctx, {
        name: "tcp",
        options: { port: port(), host: loopbackHost() },
        check: (_, options, signal) => accepts(options, signal),
      }),
    );
  },
});

/** Connects and closes again, nothing said. */
function accepts(
  { host, port }: { host: string; port: number },
  signal: AbortSignal,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, signal });
    const answer = (problem?: string) => {
      resolve(problem);
      socket.destroy();
    };
    socket.once("connect", () => answer());
    socket.once("error", ({ code }: NodeJS.ErrnoException) =>
      answer(`no connection to ${host} port ${port} (${code})`),
    );
  });
}
