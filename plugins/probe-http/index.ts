import { z } from "zod";
import { definePlugin, probe } from "../../core/index.js";
import { loopbackHost, port } from "../kit/loopback.js";
import { pollingProbe } from "../kit/probe-loop.js";
import { ask } from "./ask.js";

const path = z
  .string()
  .max(2_000)
  .regex(/^\/[!-~]*$/, 'expected a path that begins with "/", without blanks: /healthz')
  .default("/");

/** The probe `http`: a `GET` is answered with a status from 200 to 399. */
export default definePlugin({
  name: "probe-http",
  apiVersion: 1,
  provides: [probe],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(
      probe,
      pollingProbe(ctx, {
        name: "http",
        options: { port: port(), host: loopbackHost(), path },
        check: (_, options, signal) => ask(options, signal),
      }),
    );
  },
});
