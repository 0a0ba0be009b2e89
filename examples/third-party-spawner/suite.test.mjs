// Proves that the spawner keeps the contract, with the suite that the daemon publishes.
import { test } from "node:test";
import { definePlugin, spawner } from "openstarry-daemon";
import processSpawner from "openstarry-daemon/plugins/spawner-process";
import { createTestKernel, memorySpawner, testSpawner } from "openstarry-daemon/testing";
import niced from "openstarry-spawner-niced";

const anything = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } };

testSpawner({
  test,
  async factory(home) {
    let use;
    const look = definePlugin({
      name: "look",
      apiVersion: 1,
      options: anything,
      setup(ctx) {
        use = () => ctx.use(spawner).get("niced");
      },
    });
    const kernel = createTestKernel({
      dataDir: home,
      spawner: memorySpawner({ name: "memory" }),
      plugins: [processSpawner(), niced({ niceness: 5 }), look()],
    });
    await kernel.start();
    return { spawner: use(), release: () => kernel.stop({ agents: "keep", reason: "the test is over" }) };
  },
});
