// A message bus in the daemon's process, over a store of the plugin's, published as `openstarry-daemon/kit/bus`.
export { type BusEngine, type BusEngineOptions, createBusEngine } from "./bus-engine.js";
export { limitFields, limitsOf } from "./limits.js";
export { assertPosition } from "./position.js";
export { bytesOf, createRecentMessages, type RecentMessagesOptions } from "./recent-messages.js";
export { createSignal, type Signal } from "./signal.js";
export type {
  ConsumerGroupId,
  ConsumerGroupRecord,
  ConsumerGroupStore,
  ConsumerGroupUpdate,
  FindResult,
  MessageLog,
} from "./storage.js";
