import { join } from "node:path";
import { definePlugin, templateSource } from "../../core/index.js";
import { createCache } from "./cache.js";
import { createHttpSource } from "./http-source.js";
import { options } from "./options.js";
import { createService } from "./service.js";

/** The Agent Design Layer as a service elsewhere, with a cache for when that is away. */
export default definePlugin({
  name: "template-source-http",
  apiVersion: 1,
  provides: [templateSource],
  options,
  setup(ctx, { url, token_file, timeout, max_age, refresh }) {
    const { clock, dataDir, log, templates } = ctx;
    const service = createService({ url, tokenFile: token_file, timeoutMs: timeout, clock });
    const cache = createCache({ folder: join(dataDir, "templates-http"), service: url, log });
    let isStopped = false;
    const tell = (problem: string | undefined) => {
      if (isStopped) return;
      if (problem === undefined) ctx.daemon.recovered();
      else ctx.daemon.degraded(problem);
    };
    const source = createHttpSource({ service, cache, templates, clock, log, maxAgeMs: max_age, tell });
    ctx.provide(templateSource, source.source);
    let cancel = () => {};
    const keepFresh = async () => {
      await source
        .refresh()
        .catch((err: unknown) => log.error({ err }, "the templates could not be refreshed"));
      if (!isStopped) cancel = clock.after(refresh, () => void keepFresh());
    };
    return {
      async start() {
        await source.load();
        // Not waited for: agents of the cache start whether the service is there or not.
        void keepFresh();
      },
      stop() {
        isStopped = true;
        cancel();
        service.stop();
      },
    };
  },
});
