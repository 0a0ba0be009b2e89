import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { definePlugin, OpenStarryError, templateSource } from "../../core/index.js";
import { createFileSource } from "./file-source.js";

const options = z.strictObject({
  /** Absolute. Besides `templates` in the daemon's home, which comes first. */
  folders: z.array(z.string().startsWith("/", "expected an absolute path")).max(100).default([]),
});

/** The Agent Design Layer as files of folders. */
export default definePlugin({
  name: "templates-file",
  apiVersion: 1,
  provides: [templateSource],
  options,
  setup(ctx, { folders }) {
    const home = join(ctx.dataDir, "templates");
    const source = createFileSource([home, ...folders], ctx.log);
    ctx.provide(templateSource, source);
    return {
      async start() {
        try {
          mkdirSync(home, { recursive: true, mode: 0o700 });
        } catch (cause) {
          throw new OpenStarryError("home_unusable", {
            detail: `the folder ${home} cannot be made (${(cause as NodeJS.ErrnoException).code})`,
            hint: "see who owns the daemon's home, or choose another with --home",
            cause,
          });
        }
        await source.list();
      },
    };
  },
});
