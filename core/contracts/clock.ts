/** Time, injected: the kernel and the plugins take it from here, so that tests can hold it still. */
export interface Clock {
  /** Wall clock, milliseconds since the epoch: for records and people. */
  now(): number;
  /** Milliseconds that never jump: for durations. */
  monotonic(): number;
  /** Runs `callback` once after `delayMs`; the returned function cancels it. Never keeps the process alive. */
  after(delayMs: number, callback: () => void): () => void;
}
