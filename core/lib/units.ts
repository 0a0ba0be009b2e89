const DURATION_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const SIZE_BYTES: Record<string, number> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Ten years: beyond it a date cannot be counted on, and nobody means it. */
const LONGEST_DURATION_MS = 3_650 * 86_400_000;

/** `"500ms"`, `"60s"`, `"10m"`, `"2h"`, `"1d"`, or several as in `"1m30s"`, in milliseconds. */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d{1,9}(\.\d{1,3})?(ms|s|m|h|d))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (DURATION_MS[unit ?? ""] ?? 0);
  }
  return total <= LONGEST_DURATION_MS ? Math.round(total) : undefined;
}

/** `"512KiB"`, `"10MiB"`, `"1.5GB"`, in bytes. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,12}(?:\.\d{1,3})?)([KMGT]i?B|B)$/.exec(text);
  if (!match) return undefined;
  return Math.round(Number(match[1]) * (SIZE_BYTES[match[2] ?? ""] ?? 0));
}

/** `"150%"`, `"12.5%"`: the number. */
export function parsePercent(text: string): number | undefined {
  const match = /^(\d{1,6}(?:\.\d{1,3})?)%$/.exec(text);
  return match ? Number(match[1]) : undefined;
}

/** Bytes as a person reads them: `"512B"`, `"3.4KiB"`, `"128MiB"`, `"1.5GiB"`. */
export function formatSize(bytes: number): string {
  let [amount, power] = [bytes, 0];
  // 1,023.6 would be shown as 1024.
  for (; amount >= 1_023.5 && power < 4; power++) amount /= 1_024;
  const digits = amount < 9.95 && power > 0 ? 1 : 0;
  return `${Number(amount.toFixed(digits))}${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** Milliseconds as a person reads them: `"450ms"`, `"12.3s"`, `"4m 10s"`, `"2h 5m"`, `"3d 4h"`. */
export function formatDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${Number((ms / 1_000).toFixed(1))}s`;
  const units: [string, number][] = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ];
  const first = units.findIndex(([, size]) => ms >= size);
  return units
    .slice(first, first + 2)
    .map(([unit, size], index) => [
      unit,
      Math.floor((index === 0 ? ms : ms % (units[first]?.[1] ?? 1)) / size),
    ])
    .filter(([, amount], index) => index === 0 || amount !== 0)
    .map(([unit, amount]) => `${amount}${unit}`)
    .join(" ");
}
