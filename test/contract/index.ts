/**
 * The contract suites, published as `openstarry-daemon/testing`: an implementation of a slot proves
 * with them that it keeps the contract. Each takes the test runner and a factory.
 */
export * from "./journal.js";
export * from "./memory-plugins.js";
export * from "./sampler.js";
export * from "./spawner.js";
export * from "./state-store.js";
export * from "./test-host.js";
export * from "./test-kernel.js";
