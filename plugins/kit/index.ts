// What several plugins need, published as `openstarry-daemon/kit`. It loads no database driver, client or native
// module: what needs one is in `kit/sqlite` and `kit/redis`. README.md lists it all.

export { removeFile, unusable, writeWhole } from "./atomic-file.js";
export { expectVersion } from "./expect-version.js";
export { readKernelBytes, readKernelFile } from "./kernel-file.js";
export { aboveKeys, firstKey } from "./key-range.js";
export { errnoError, type Libc, loadLibc, type NativeFunction } from "./libc.js";
export { lineage } from "./lineage.js";
export { loopbackHost, port } from "./loopback.js";
export {
  createManagedServer,
  findProgram,
  type ManagedServer,
  type ManagedServerOptions,
  type Program,
} from "./managed-server.js";
export { createPerRunHealth, type PerRunHealth } from "./per-run-health.js";
export { createPortMemory, type PortMemory } from "./port-memory.js";
export { privateFolder, writePrivateFile } from "./private-files.js";
export {
  type Check,
  expectSigns,
  interval,
  misses,
  type PollingProbeDeps,
  pollingProbe,
  type SignOptions,
  signOptions,
} from "./probe-loop.js";
export {
  ownStartTicks,
  type ProcessReading,
  parseProcessStat,
  readProportionalMemory,
  TICK_MS,
} from "./proc-stat.js";
export { sampleInterval } from "./sample-interval.js";
export { newSecret, readOrCreateSecret, readSecret } from "./secret-file.js";
export { assertReplaceable, socketPath } from "./socket-path.js";
export {
  type EncodedWrite,
  encodeWrite,
  entryOf,
  isLive,
  type Plan,
  planWrite,
  type Row,
} from "./state-plan.js";
export { shareTail } from "./tail-share.js";
export { createStatusThrottle } from "./throttle-status.js";
export { filter, MAX_PAYLOAD_BYTES, topic } from "./topic-schemas.js";
export { DAEMON_TOPICS, ownerOf, REPLY_TOPICS, topicMatches } from "./topics.js";
export { createUsageMeter, type RunReading, type UsageMeter } from "./usage-meter.js";
export { findUser, type User } from "./users.js";
export { type Hosted, type WaitOptions, waitUntilHealthy } from "./wait-until-healthy.js";
