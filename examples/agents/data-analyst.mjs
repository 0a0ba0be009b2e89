/**
 * An agent that analyses one CSV file: what each column contains, which columns correlate, and how the groups of one
 * column differ. It finds everything it needs in its environment. It writes its findings to its result file and to its
 * namespace in the state store, and notifies its parent over the message bus. It exits with 0 on success, and with 1
 * and the reason otherwise.
 */
import { readFile, writeFile } from "node:fs/promises";
import { clientFromEnv } from "openstarry-daemon/client";
import { analyse } from "./analysis.mjs";

const HEARTBEAT_EVERY_MS = 1_000;

const {
  OPENSTARRY_PARAMS_FILE: paramsFile,
  OPENSTARRY_RESULT_FILE: resultFile,
  OPENSTARRY_AGENT_ID: self,
  OPENSTARRY_PARENT_ID: parent,
} = process.env;
if (!paramsFile || !resultFile) {
  console.error("this is an agent: start it through the daemon, for example with");
  console.error("  openstarry-daemon run DataAnalystAgent_v1 --param file=data/weather.csv");
  process.exit(1);
}

const daemon = clientFromEnv();
let lastHeartbeat = 0;

/** Reports progress. The daemon may be unavailable for a moment, which is no reason to stop working. */
function report(status, progress) {
  lastHeartbeat = performance.now();
  return daemon.heartbeat({ status, progress }).catch((error) => {
    console.error(`no heartbeat: ${error.message}`);
  });
}

try {
  const { file, group_by: groupBy, top } = JSON.parse(await readFile(paramsFile, "utf8"));
  console.log(`reading ${file}`);
  await report(`reading ${file}`, 0);
  const result = await analyse(file, {
    groupBy,
    top,
    onProgress(share) {
      if (performance.now() - lastHeartbeat > HEARTBEAT_EVERY_MS) void report(`reading ${file}`, share);
    },
  });
  await writeFile(resultFile, JSON.stringify(result));
  await daemon.state.put(`agent:${self}`, "analysis", result);
  if (parent) await daemon.bus.publish(`agents/${parent}/inbox`, { key: "analysis", rows: result.rows });
  await report(`analysed ${result.rows} rows`, 1);
  console.log(`${result.file}: ${result.rows} rows, ${result.columns.length} columns`);
  for (const finding of result.findings) console.log(`- ${finding}`);
} catch (error) {
  console.error(`analysis failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  daemon.close();
}
