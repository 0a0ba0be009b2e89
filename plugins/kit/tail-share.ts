/**
 * Divides the last `total` lines between two streams: half each, and what one does not use goes to the other. So a
 * verbose stream cannot hide the last lines of the other. stderr gets the odd line.
 */
export function shareTail(
  has: { stdout: number; stderr: number },
  total: number,
): { stdout: number; stderr: number } {
  const stderr = Math.min(has.stderr, Math.max(Math.ceil(total / 2), total - has.stdout));
  return { stdout: Math.min(has.stdout, total - stderr), stderr };
}
