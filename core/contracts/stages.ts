/**
 * Where a tap stands among the others of its hook. Within a stage taps run in the order of the
 * plugin graph, then of the config. There is no way to name another plugin's tap.
 */
export const STAGES = { FIRST: -200, RECORD: -100, DEFAULT: 0, PUBLISH: 100, LAST: 200 } as const;
export type Stage = keyof typeof STAGES;
