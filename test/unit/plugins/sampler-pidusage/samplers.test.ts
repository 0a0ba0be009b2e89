import { describe, it } from "vitest";
import { sampler } from "../../../../core/index.js";
import pidusage from "../../../../plugins/sampler-pidusage/index.js";
import procfs from "../../../../plugins/sampler-procfs/index.js";
import { testSampler } from "../../../contract/sampler.js";
import { createTestHost } from "../../../contract/test-host.js";

describe.each([
  ["sampler-pidusage", pidusage],
  ["sampler-procfs", procfs],
])("%s", (_, plugin) => {
  testSampler({
    test: (name, body) => it(name, body),
    async factory() {
      const host = createTestHost({ plugins: [plugin()], dataDir: "/nonexistent" });
      await host.start();
      return { sampler: host.use(sampler), release: () => host.stop() };
    },
  });
});
