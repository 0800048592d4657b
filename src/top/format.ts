/** Numbers in the width of a table. */

/** `1.5 k`, `12 M`: a count in three digits. */
export function formatCount(value: number): string {
  return scale(value, ['', ' k', ' M', ' G'], 1000);
}

/** `8.3 MiB`: bytes in binary units. */
export function formatBytes(value: number): string {
  return scale(value, [' B', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB'], 1024);
}

/** `256 us`, `1.5 ms`; `-` for none. */
export function formatLatency(us: number): string {
  return us === 0 ? '-' : scale(us, [' us', ' ms', ' s'], 1000);
}

/** `12 s`, `3 min`, `5 h 12 min`, `3 days`. */
export function formatSpan(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800)
    return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86_400)} days`;
}

function scale(value: number, units: readonly string[], base: number): string {
  let rest = value;
  let unit = 0;
  while (rest >= base && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  const isWhole = Number.isInteger(rest) || rest >= 100;
  return `${isWhole ? Math.round(rest) : rest.toFixed(1)}${units[unit] ?? ''}`;
}
