// Proves that the spawner keeps the contract, with the suite that the daemon publishes.
import { test } from "node:test";
import { spawner } from "openstarry-daemon";
import processSpawner from "openstarry-daemon/plugins/spawner-process";
import { createTestHost, testSpawner } from "openstarry-daemon/testing";
import niced from "openstarry-spawner-niced";

testSpawner({
  test,
  async factory(home) {
    const host = createTestHost({ dataDir: home, plugins: [processSpawner(), niced({ niceness: 5 })] });
    await host.start();
    return { spawner: host.use(spawner).get("niced"), release: host.stop };
  },
});
