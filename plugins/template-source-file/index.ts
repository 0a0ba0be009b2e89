import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { definePlugin, templateSource } from "../../core/index.js";
import { ensureFolder } from "./ensure-folder.js";
import { createFileSource } from "./file-source.js";
import { createFolderWatch } from "./folder-watch.js";

const options = z.strictObject({
  /** Absolute. Besides `templates` in the daemon's home, which comes first. */
  folders: z.array(z.string().startsWith("/", "expected an absolute path")).max(100).default([]),
});

/** The Agent Design Layer as files of folders. */
export default definePlugin({
  name: "template-source-file",
  apiVersion: 1,
  provides: [templateSource],
  options,
  setup({ clock, dataDir, log, provide, templates }, options) {
    const home = join(dataDir, "templates");
    const folders = [home, ...options.folders] as const;
    const watch = createFolderWatch({ folders, clock, log, onChange: () => void source.scan() });
    const source = createFileSource({ folders, log, templates, onScan: watch.refresh });
    provide(templateSource, source);
    return {
      async start() {
        if (!existsSync(home)) await ensureFolder(home);
        for (const folder of options.folders) {
          if (!existsSync(folder)) log.warn({ folder }, "this folder of templates is not there yet");
        }
        watch.start();
        await source.scan();
      },
      stop: watch.stop,
    };
  },
});
