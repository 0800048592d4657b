/** One screen of `top`, as lines of text. Pure. */

import type { LatencySummary, Report, Sample, VbdSample } from '../monitor/index.ts';
import { formatBytes, formatCount, formatLatency, formatSpan } from './format.ts';

/** What is known of the daemon. */
export interface View {
  readonly report: Report;
  /** The oldest first. */
  readonly samples: readonly Sample[];
}

/** How it is drawn. */
export interface ScreenOptions {
  readonly columns: number;
  readonly rows: number;
  /** Which vbd, counted from 0 and round. */
  readonly vbdIndex: number;
  /** Whether the terminal shows more than ASCII. */
  readonly isUnicode: boolean;
  /** Unix time in ms. */
  readonly nowMs: number;
  /** The last line: keys, or what is wrong. */
  readonly footer: string;
}

const BAR_COLUMNS = 30;
const LABEL_COLUMNS = 12;
const SPARKS = '▁▂▃▄▅▆▇█';
const ASCII_SPARKS = '_.-=+*#@';
/** Rows of the heat map that the histogram of the last second shows: 8 us to 0.5 s. */
const HEAT_FIRST = 1;
const HEAT_COUNT = 17;

/** Exactly `rows` lines of at most `columns` characters. */
export function drawScreen(view: View, options: ScreenOptions): string[] {
  const { columns, rows, footer } = options;
  const body = drawBody(view, options);
  const shown = body.slice(0, Math.max(0, rows - 1));
  while (shown.length < rows - 1) shown.push('');
  return [...shown, footer].map((line) => printable(line).slice(0, columns));
}

function drawBody({ report, samples }: View, options: ScreenOptions): string[] {
  const { vbds } = report;
  const vbd = vbds[vbds.length === 0 ? 0 : options.vbdIndex % vbds.length];
  const title = `xenblk-nbd ${report.version}  process ${report.pid}`;
  const up = `up ${formatSpan(options.nowMs - report.startedMs)}`;
  if (vbd === undefined) return [justify(title, up, options.columns), `${report.state}: no vbd`];
  const history = samples.flatMap((sample) => sample.vbds.filter(({ name }) => name === vbd.name));
  const now = history.at(-1);
  const which =
    vbds.length > 1 ? ` (${(options.vbdIndex % vbds.length) + 1} of ${vbds.length})` : '';
  const errors = now?.backendErrors ?? 0;
  const trouble = errors > 0 ? `, ${formatCount(errors)} ERRORS OF THE BACKEND` : '';
  const state = (vbd.isWaiting ? 'WAITING FOR ITS BACKEND' : report.state) + trouble;
  const head = [
    justify(title, up, options.columns),
    `${vbd.name}${which}, ${formatBytes(vbd.sizeBytes)}${vbd.isReadOnly ? ', read-only' : ''}: ${state}`,
    '',
  ];
  if (now === undefined) return [...head, 'waiting for the first numbers'];
  return [
    ...head,
    ...drawNumbers(now),
    '',
    ...drawHistory(history, options),
    '',
    ...drawClients(report, options),
  ];
}

function drawNumbers(now: VbdSample): string[] {
  const total = Object.values(now.requests).reduce((sum, value) => sum + value, 0);
  const perCommand = Object.entries(now.requests).map(
    ([name, value]) => `${name} ${formatCount(Math.round(value))}`,
  );
  const { read, write, flush, all } = now.latencyUs;
  return [
    `${cell(`${formatCount(Math.round(total))} requests/s`)}${cell(`read ${formatBytes(now.readBytes)}/s`)}` +
      `${cell(`written ${formatBytes(now.writtenBytes)}/s`)}errors ${formatCount(now.errors)}/s`,
    label('each second', perCommand.join('  ')),
    label('latency', '     50 %      95 %      99 %       max'),
    latencyRow('read', read),
    latencyRow('write', write),
    latencyRow('flush', flush),
    latencyRow('all', all),
    label('ring', bar(now.slotsUsed, now.slotCount, 'slots')),
    label('pages', bar(now.pagesUsed, now.pageCount, 'in use')),
    label(
      'backend',
      `${formatCount(now.ringRequests)} requests/s  ${formatCount(now.notifications)} notifications/s  ` +
        `${formatCount(now.waits)} waits/s  ${now.recoveries} recoveries`,
    ),
  ];
}

function drawHistory(history: readonly VbdSample[], options: ScreenOptions): string[] {
  const columns = Math.max(10, options.columns - LABEL_COLUMNS - 14);
  const line = (
    name: string,
    values: readonly number[],
    format: (most: number) => string,
  ): string => {
    const last = values.slice(-columns);
    const most = Math.max(0, ...last);
    return label(name, `${sparkline(last, most, columns, options.isUnicode)} ${format(most)}`);
  };
  const heat = (history.at(-1)?.heat ?? []).slice(HEAT_FIRST, HEAT_FIRST + HEAT_COUNT);
  const wide = heat.flatMap((value) => [value, value]);
  const most = Math.max(0, ...wide);
  return [
    line(
      'read',
      history.map(({ readBytes }) => readBytes),
      (value) => `${formatBytes(value)}/s`,
    ),
    line(
      'written',
      history.map(({ writtenBytes }) => writtenBytes),
      (value) => `${formatBytes(value)}/s`,
    ),
    line(
      '99 % below',
      history.map(({ latencyUs }) => latencyUs.all.p99),
      formatLatency,
    ),
    label('8us - 500ms', sparkline(wide, most, wide.length, options.isUnicode)),
  ];
}

function drawClients({ clients, clientCount }: Report, { nowMs }: ScreenOptions): string[] {
  const rows = clients.map(({ id, peer, exportName, isTls, sinceMs }) =>
    label(
      '',
      `${id}  ${peer}${isTls ? ' (TLS)' : ''}  ${exportName}  ${formatSpan(nowMs - sinceMs)}`,
    ),
  );
  return [label('clients', String(clientCount)), ...rows];
}

function latencyRow(name: string, { p50, p95, p99, max }: LatencySummary): string {
  const cells = [p50, p95, p99, max].map((us) => formatLatency(us).padStart(9));
  return label(`  ${name}`, cells.join(' '));
}

function bar(used: number, total: number, what: string): string {
  const part = total === 0 ? 0 : Math.min(1, used / total);
  const full = Math.round(part * BAR_COLUMNS);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_COLUMNS - full)}] ${used} of ${total} ${what}`;
}

/** A character for each value, the newest at the right end. Nothing is a space. */
function sparkline(
  values: readonly number[],
  most: number,
  columns: number,
  isUnicode: boolean,
): string {
  const marks = isUnicode ? SPARKS : ASCII_SPARKS;
  const text = values
    .map((value) => {
      if (value === 0 || most === 0) return ' ';
      return marks[Math.min(marks.length - 1, Math.floor((value / most) * marks.length))] ?? ' ';
    })
    .join('');
  return text.padStart(columns);
}

function label(name: string, value: string): string {
  return `${name.padEnd(LABEL_COLUMNS)}${value}`;
}

function cell(text: string): string {
  return text.padEnd(21);
}

function justify(left: string, right: string, columns: number): string {
  return left.padEnd(Math.max(left.length + 1, columns - right.length)) + right;
}

/** A terminal obeys control characters, and names come from elsewhere. */
function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}]/gu, '?');
}
