/** Columns of text, as wide as what is in them. */

const GAP = '  ';

/**
 * A heading and rows with a cell for each column; the last column is as long as it likes. What the
 * other domain wrote is shown without control characters, which a terminal would obey.
 */
export function formatTable(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const lines = [heading, ...rows].map((row) => row.map(printable));
  const widths = heading.map((_, column) =>
    Math.max(...lines.map((line) => (line[column] ?? '').length)),
  );
  return lines
    .map((line) => {
      const cells = line.map((cell, column) => cell.padEnd(widths[column] ?? 0));
      return `${cells.join(GAP).trimEnd()}\n`;
    })
    .join('');
}

/** Text in which every character that is not printable is a question mark. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}
