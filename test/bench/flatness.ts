// Does a request cost the same with one client and with many, on a small disk and on a huge one?
// CPU of our server per 4 KiB read, the simulated backend apart.
import { join } from 'node:path';
import { createSparseImage } from '../support/disk-image.ts';
import { type RunningServer, xenblkNbd } from '../support/nbd-server.ts';
import { type LoadSettings, measure, type Sample, undisturbed } from './measure.ts';
import { median } from './results.ts';
import type { FioRow } from './rows.ts';

const GIB = 2 ** 30;
const TIB = 2 ** 40;
/** How far a cost may be from the middle of its table. */
const SPREAD_MAX = 0.15;
/** Requests in flight, however many connections share them. */
const IN_FLIGHT = 64;
/** The same of each connection, however many there are. */
const IN_FLIGHT_EACH = 16;

const CONNECTIONS = [1, 4, 16, 64];
const SIZES: readonly { readonly name: string; readonly bytes: number }[] = [
  { name: '1 GiB', bytes: GIB },
  { name: '64 GiB', bytes: 64 * GIB },
  { name: '1 TiB', bytes: TIB },
  { name: '8 TiB', bytes: 8 * TIB },
];

export interface FlatnessPoint {
  readonly name: string;
  readonly cpuUsPerRequest: number;
}

export interface FlatnessTable {
  readonly title: string;
  readonly points: readonly FlatnessPoint[];
  /** Largest distance of a point from the median, as a part of that. */
  readonly spread: number;
}

function row(connectionCount: number, queueDepth = IN_FLIGHT / connectionCount): FioRow {
  return {
    kind: 'fio',
    name: '',
    mode: 'randread',
    blockBytes: 4096,
    queueDepth,
    connectionCount,
  };
}

function tableOf(title: string, points: readonly FlatnessPoint[]): FlatnessTable {
  const middle = median(points.map(({ cpuUsPerRequest }) => cpuUsPerRequest)) ?? 0;
  const distances = points.map(({ cpuUsPerRequest }) => Math.abs(cpuUsPerRequest / middle - 1));
  return { title, points, spread: Math.max(...distances) };
}

/** One server for each size, all of them up, so that a repetition visits each point in turn. */
export async function measureFlatness(
  settings: LoadSettings,
  repetitions: number,
): Promise<FlatnessTable[]> {
  const servers = [];
  try {
    for (const [index, { name, bytes }] of SIZES.entries()) {
      const file = join(settings.folder, `sparse-${index}.raw`);
      createSparseImage(file, bytes);
      const unixPath = join(settings.folder, `sparse-${index}.sock`);
      servers.push({ name, server: await xenblkNbd.start({ file, unixPath }) });
    }
    const [first] = servers;
    if (first === undefined) return [];
    const byConnections = CONNECTIONS.map((count) => ({ count, costs: [] as number[] }));
    const byClients = CONNECTIONS.map((count) => ({ count, costs: [] as number[] }));
    const bySize = servers.map(({ name, server }) => ({ name, server, costs: [] as number[] }));
    const all = [...byConnections, ...byClients, ...bySize];
    let isWarm = false;
    const cost = async (server: RunningServer, load: FioRow, costs: number[]): Promise<void> => {
      const run = (): Promise<Sample> => measure(server, load, settings);
      const sample = await (isWarm ? undisturbed(run) : run());
      costs.push(sample.cpuUsPerRequest);
    };
    for (let repetition = 0; repetition <= repetitions; repetition++) {
      for (const { count, costs } of byConnections) await cost(first.server, row(count), costs);
      for (const { count, costs } of byClients) {
        await cost(first.server, row(count, IN_FLIGHT_EACH), costs);
      }
      for (const { server, costs } of bySize) await cost(server, row(4), costs);
      // The first does not count: code is compiled and pages are met for the first time.
      if (!isWarm) for (const { costs } of all) costs.length = 0;
      else console.log(`repetition ${repetition}/${repetitions}, flatness`);
      isWarm = true;
    }
    const point = (name: string, costs: readonly number[]): FlatnessPoint => ({
      name,
      cpuUsPerRequest: median(costs) ?? Number.NaN,
    });
    return [
      tableOf(
        `${IN_FLIGHT} requests in flight on N connections`,
        byConnections.map(({ count, costs }) => point(`${count}`, costs)),
      ),
      tableOf(
        `${IN_FLIGHT_EACH} requests in flight on each of N connections`,
        byClients.map(({ count, costs }) => point(`${count}`, costs)),
      ),
      tableOf(
        `${IN_FLIGHT} requests in flight on 4 connections, sparse disks`,
        bySize.map(({ name, costs }) => point(name, costs)),
      ),
    ];
  } finally {
    for (const { server } of servers) await server.stop();
  }
}

/** The tables as text. */
export function flatnessReport(tables: readonly FlatnessTable[]): string {
  return tables
    .map(({ title, points, spread }) => {
      const cells = points.map(({ name, cpuUsPerRequest }) => {
        return `${name}: ${cpuUsPerRequest.toFixed(2)} us`;
      });
      const verdict = spread <= SPREAD_MAX ? 'met' : 'NOT met';
      return (
        `CPU of a 4K read, ${title}: ${cells.join(', ')}; at most ` +
        `${(spread * 100).toFixed(0)} % from the median (within ${SPREAD_MAX * 100} %: ${verdict})`
      );
    })
    .join('\n');
}
