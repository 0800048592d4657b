// The result as a picture: one line for each row, one dot for each server, at its throughput
// relative to the best of the others. Plain SVG that follows a light or dark page.
import { shortNumber } from './report.ts';
import type { RowResult } from './results.ts';

const WIDTH = 960;
const ROW_HEIGHT = 25;
const PLOT_LEFT = 170;
const PLOT_RIGHT = 640;
const PLOT_TOP = 104;
/** Right edges of the three columns beside the plot. */
const RATIO_RIGHT = 704;
const RATE_RIGHT = 800;
const CPU_RIGHT = 944;

const STYLE = `
  text { font: 12px system-ui, 'Segoe UI', 'Helvetica Neue', sans-serif; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .soft { fill: #656d76; }
  .strong { font-weight: 600; }
  .grid { stroke: #d8dee4; } .one { stroke: #656d76; } .span { stroke: #c2c9d1; stroke-width: 2; }
  .ours { fill: #d4480b; } .peer { fill: #ffffff; stroke-width: 2; }
  .p0 { stroke: #0969da; } .p1 { stroke: #1a7f37; } .p2 { stroke: #8250df; } .p3 { stroke: #9a6700; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .soft { fill: #8d96a0; }
    .grid { stroke: #30363d; } .one { stroke: #8d96a0; } .span { stroke: #484f58; }
    .ours { fill: #ff7b3d; } .peer { fill: #0d1117; }
    .p0 { stroke: #58a6ff; } .p1 { stroke: #3fb950; } .p2 { stroke: #bc8cff; } .p3 { stroke: #d29922; }
  }`;

export interface ChartInput {
  readonly results: readonly RowResult[];
  readonly servers: readonly string[];
  readonly ours: string;
  /** Below the title: the machine and the date. */
  readonly subtitle: string;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escapeText(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, className: string): string {
  const at = `x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}"`;
  return `<line ${at} class="${className}"/>`;
}

function dot(x: number, y: number, className: string, radius: number, title: string): string {
  const at = `cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${radius}"`;
  return `<circle ${at} class="${className}"><title>${escapeText(title)}</title></circle>`;
}

function legend(servers: readonly string[], ours: string): string[] {
  const parts: string[] = [];
  let x = 20;
  const peers = servers.filter((server) => server !== ours);
  for (const server of [ours, ...peers]) {
    const isOurs = server === ours;
    const className = isOurs ? 'ours' : `peer p${peers.indexOf(server)}`;
    parts.push(dot(x, 64, className, isOurs ? 6 : 4, server));
    parts.push(text(x + 11, 68, server, isOurs ? 'class="strong"' : ''));
    x += 40 + server.length * 7.5;
  }
  return parts;
}

/** How our CPU compares with that of the most thrifty peer. */
function compareCpu(ratio: number | undefined): string {
  if (ratio === undefined) return '';
  return ratio >= 1 ? ` (${ratio.toFixed(1)}x less)` : ` (${(1 / ratio).toFixed(1)}x more)`;
}

function chartRow(
  result: RowResult,
  y: number,
  input: ChartInput,
  toX: (ratio: number) => number,
): string[] {
  const parts = [text(20, y + 4, result.name)];
  const unit = result.unit === 'bytes/s' ? 'B/s' : '/s';
  const best = result.bestPeer === undefined ? undefined : result.cells[result.bestPeer]?.rate;
  const peers = input.servers.filter((server) => server !== input.ours);
  if (result.ratio !== undefined) {
    parts.push(line(toX(Math.min(1, result.ratio)), y, toX(Math.max(1, result.ratio)), y, 'span'));
  }
  for (const [index, peer] of peers.entries()) {
    const rate = result.cells[peer]?.rate;
    if (rate === undefined || best === undefined) continue;
    const title = `${peer}: ${shortNumber(rate)}${unit}`;
    parts.push(dot(toX(rate / best), y, `peer p${index}`, 4, title));
  }
  const ours = result.cells[input.ours];
  const isRight = 'text-anchor="end"';
  if (ours?.rate === undefined) {
    parts.push(text(PLOT_RIGHT + 20, y + 4, 'failed', 'class="soft"'));
    return parts;
  }
  const rateText = `${shortNumber(ours.rate)}${unit}`;
  if (result.ratio !== undefined) {
    parts.push(dot(toX(result.ratio), y, 'ours', 6, `${input.ours}: ${rateText}`));
    parts.push(
      text(RATIO_RIGHT, y + 4, `${result.ratio.toFixed(2)}x`, `${isRight} class="strong"`),
    );
  }
  parts.push(text(RATE_RIGHT, y + 4, rateText, isRight));
  const cpu = ours.cpuUsPerRequest;
  if (cpu !== undefined) {
    const compared = compareCpu(result.cpuRatio);
    parts.push(text(CPU_RIGHT, y + 4, `${shortNumber(cpu)}${compared}`, isRight));
  }
  return parts;
}

/** The chart as an SVG document. */
export function svgChart(input: ChartInput): string {
  const { results } = input;
  const ratios = results.map((result) => result.ratio ?? 1);
  const most = Math.max(1.5, ...ratios) * 1.04;
  const toX = (ratio: number): number => PLOT_LEFT + ((PLOT_RIGHT - PLOT_LEFT) * ratio) / most;
  const bottom = PLOT_TOP + results.length * ROW_HEIGHT;
  const height = bottom + 44;
  const isRight = 'text-anchor="end" class="soft"';
  const parts = [
    text(20, 28, 'NBD throughput, the best other server in each row = 1', 'class="title"'),
    text(20, 46, input.subtitle, 'class="soft"'),
    ...legend(input.servers, input.ours),
    text(RATIO_RIGHT, PLOT_TOP - 14, 'ours : best', isRight),
    text(RATE_RIGHT, PLOT_TOP - 14, 'our rate', isRight),
    text(CPU_RIGHT, PLOT_TOP - 14, 'CPU us a request', isRight),
  ];
  const step = most > 4 ? 1 : 0.5;
  for (let ratio = 0; ratio <= most; ratio += step) {
    const x = toX(ratio);
    parts.push(line(x, PLOT_TOP - 4, x, bottom, ratio === 1 ? 'one' : 'grid'));
    parts.push(text(x, bottom + 16, String(ratio), 'text-anchor="middle" class="soft"'));
  }
  for (const [index, result] of results.entries()) {
    const y = PLOT_TOP + (index + 0.5) * ROW_HEIGHT;
    parts.push(...chartRow(result, y, input, toX));
  }
  const note = 'Medians. Ours does one hop more: every request crosses the Xen ring to a backend.';
  parts.push(text(20, bottom + 36, note, 'class="soft"'));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
      `width="${WIDTH}" height="${height}" role="img" aria-label="NBD throughput of servers">`,
    `<style>${STYLE}\n</style>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
