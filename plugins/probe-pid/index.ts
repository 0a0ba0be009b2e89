import { z } from "zod";
import { definePlugin, type Probe, probe } from "../../core/index.js";

/** By the process alone: who watches a run sees it live, and its end is seen by its spawner. */
const pid: Probe = {
  name: "pid",
  roles: ["readiness", "liveness"],
  options: z.strictObject({}),
  watch: ({ role, report }) => (role === "readiness" ? report.ready() : report.healthy()),
};

/** The probe `pid`. */
export default definePlugin({
  name: "probe-pid",
  apiVersion: 1,
  provides: [probe],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(probe, pid);
  },
});
