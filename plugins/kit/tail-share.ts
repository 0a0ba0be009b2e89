/**
 * Of the last `total` of two streams, how much each gives: half each, and what one does not use goes to
 * the other. stderr has the odd one. So a chatty stream cannot hide the last word of the other.
 */
export function shareTail(
  has: { stdout: number; stderr: number },
  total: number,
): { stdout: number; stderr: number } {
  const stderr = Math.min(has.stderr, Math.max(Math.ceil(total / 2), total - has.stdout));
  return { stdout: Math.min(has.stdout, total - stderr), stderr };
}
