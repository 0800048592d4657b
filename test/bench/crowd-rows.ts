// Ten clients beside a crowd of 990 that are silent, slow or stuck: what is left of the throughput
// that they have alone. Both are measured in turns, so that a slow moment lands on either.
import type { RunningServer } from '../support/nbd-server.ts';
import { CROWD_SIZE, Crowd } from './crowd.ts';
import { type LoadSettings, measure } from './measure.ts';
import { shortNumber } from './report.ts';
import { median } from './results.ts';
import type { FioRow } from './rows.ts';

/** What has to be left. */
const RATIO_MIN = 0.8;
const CLIENTS = 10;

const CROWD_ROWS: readonly FioRow[] = [
  {
    kind: 'fio',
    name: '4K randread QD16 x10',
    mode: 'randread',
    blockBytes: 4096,
    queueDepth: 16,
    connectionCount: CLIENTS,
  },
  {
    kind: 'fio',
    name: '64K randwrite QD4 x10',
    mode: 'randwrite',
    blockBytes: 65_536,
    queueDepth: 4,
    connectionCount: CLIENTS,
  },
];

/** Requests a second of the ten, and their ratio. */
export interface CrowdResult {
  readonly name: string;
  readonly aloneRate: number;
  readonly crowdedRate: number;
  readonly ratio: number;
}

/** Measures all rows against a server on a Unix socket. */
export async function measureCrowd(
  server: RunningServer,
  unixPath: string,
  settings: LoadSettings,
  repetitions: number,
): Promise<CrowdResult[]> {
  const rates = CROWD_ROWS.map((row) => ({ row, alone: [] as number[], crowded: [] as number[] }));
  for (let repetition = 1; repetition <= repetitions; repetition++) {
    for (const { row, alone } of rates) {
      alone.push((await measure(server, row, settings)).requestsPerSecond);
    }
    const crowd = await Crowd.gather(unixPath, CROWD_SIZE);
    try {
      for (const { row, crowded } of rates) {
        crowded.push((await measure(server, row, settings)).requestsPerSecond);
      }
      const returned = crowd.returnCount > 0 ? `, ${crowd.returnCount} came again` : '';
      console.log(
        `repetition ${repetition}/${repetitions}, crowd: ${crowd.description}${returned}`,
      );
    } finally {
      crowd.leave();
    }
  }
  return rates.map(({ row, alone, crowded }) => {
    const [aloneRate = 0, crowdedRate = 0] = [median(alone), median(crowded)];
    return { name: row.name, aloneRate, crowdedRate, ratio: crowdedRate / aloneRate };
  });
}

/** The result as lines of text. */
export function crowdReport(results: readonly CrowdResult[]): string {
  return results
    .map(({ name, aloneRate, crowdedRate, ratio }) => {
      const verdict = ratio >= RATIO_MIN ? 'met' : 'NOT met';
      return (
        `${name} beside ${CROWD_SIZE} silent or slow clients: ${shortNumber(crowdedRate)} of ` +
        `${shortNumber(aloneRate)}, ${ratio.toFixed(2)}x (at least ${RATIO_MIN}x: ${verdict})`
      );
    })
    .join('\n');
}
