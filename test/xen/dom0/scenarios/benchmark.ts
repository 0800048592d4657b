/**
 * How fast reads are on a real ring of a real xen-blkback, beside what people use without this
 * program: the kernel's xen-blkfront with nbdkit or qemu-nbd on its /dev/xvdX. Nothing is asserted
 * about speed; each server must answer rightly.
 *
 * Fair by three rules. The disks are alike: loop devices on files in memory, each block with
 * another content. Loads alternate, in an order that turns from round to round. Before each run the
 * page cache is dropped, and a run reads no block twice (see read-load.ts): nbdkit reads through
 * dom0's page cache, and would not touch the ring a second time. What it does from a cache that
 * holds all is measured apart. qemu-nbd reads past the cache (O_DIRECT), as this program does.
 *
 * Its machine's clock counts instructions (see qemu.ts), so that rounds differ by 1 % where wall
 * clocks of a shared machine differed by half. All instructions cost the same there: what real
 * processors lose by cache misses, hypercalls and context switches beyond their code is not seen.
 */
import { strictEqual } from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { fetchText } from '../../../monitor/http-text.ts';
import { NbdClient } from '../../../support/nbd-client.ts';
import { nbdkitFile, qemuNbd, type ServerKind, unixUri } from '../../../support/nbd-server.ts';
import { SeededRandom } from '../../../support/random.ts';
import { eventually, run } from '../commands.ts';
import { loadKernelFrontend } from '../kernel-frontend.ts';
import { dropPageCache, type ReadLoad, type ReadSample, runReads } from '../read-load.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { stampedBlock, stampIn } from '../stamped-disk.ts';
import { createVbd, states, type Vbd } from '../vbd-fixture.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_BYTES = 128 * MIB;
const BLOCK_BYTES = 4 * KIB;
const SECONDS = 2;
const ROUNDS = 3;
/** Node compiles what runs often; servers are measured as they are after some minutes of use. */
const WARM_UP_REQUESTS = 8000;
const SAMPLED_BLOCKS = 200;
const SEED = 4711;

const LOADS: readonly ReadLoad[] = [
  {
    name: '4K random read, QD16',
    mode: 'randread',
    blockBytes: 4 * KIB,
    queueDepth: 16,
    isCountedInBytes: false,
  },
  {
    name: '256K sequential read, QD4',
    mode: 'read',
    blockBytes: 256 * KIB,
    queueDepth: 4,
    isCountedInBytes: true,
  },
];

export const benchmark: Scenario = {
  name: 'benchmark: reads of this program, and of the kernel with nbdkit or qemu-nbd',
  timeoutMs: 1_200_000,
  run: compare,
};

interface Contender {
  readonly name: string;
  readonly socket: string;
  readonly uri: string;
  readonly pid: number;
}

async function compare(lab: Lab): Promise<void> {
  const ours = await createFilledVbd(lab);
  const kernels = await createFilledVbd(lab);
  await loadKernelFrontend(lab);
  for (const vbd of [ours, kernels]) {
    await eventually(`the kernel has ${vbd.name}`, 60_000, async () =>
      (await states(vbd)) === '4/4' ? true : undefined,
    );
  }
  const device = `/dev/${kernels.name}`;
  const metricsPath = `/run/${ours.name}.metrics`;
  const served = await serveVbd(
    lab,
    ours,
    '--take-over',
    '--log-level',
    'info',
    '--metrics',
    metricsPath,
  );
  const { socket, pid } = served;
  const us: Contender = { name: 'xenblk-nbd', socket, pid, uri: unixUri(socket) };
  const nbdkit = await startPeer(lab, nbdkitFile, device);
  // Its fastest way on a block device.
  const qemu = await startPeer(lab, qemuNbd, device, '--cache=none', '--aio=native');
  const contenders = [us, nbdkit, qemu];
  for (const contender of contenders) await answersRightly(lab, contender);

  for (const load of LOADS) {
    for (const contender of contenders) {
      const sample = await runReads(contender, load, { requests: WARM_UP_REQUESTS });
      lab.step(`warm-up, ${load.name}: ${contender.name} ${describe(load, sample)}`);
    }
  }

  const table = [heading(contenders)];
  for (const load of LOADS) {
    const samples = new Map<Contender, ReadSample[]>(contenders.map((name) => [name, []]));
    for (let round = 0; round < ROUNDS; round++) {
      for (let index = 0; index < contenders.length; index++) {
        const contender = contenders[(round + index) % contenders.length] ?? us;
        dropPageCache();
        const before = contender === us ? await ringCounters(metricsPath) : undefined;
        const sample = await runReads(contender, load, { seconds: SECONDS });
        samples.get(contender)?.push(sample);
        lab.step(`${load.name}: ${contender.name} ${describe(load, sample)}`);
        if (before !== undefined) {
          lab.step(`    ${describeRing(before, await ringCounters(metricsPath), sample)}`);
        }
      }
    }
    table.push(...summary(load, contenders, samples));
    await run('dd', `if=${device}`, 'of=/dev/null', 'bs=1M');
    const cached = await runReads(nbdkit, load, { seconds: SECONDS });
    table.push(`${' '.repeat(LABEL)}nbdkit from a full page cache: ${describe(load, cached)}`);
  }
  lab.step(table.join('\n'));
  await served.stop();
}

/** Each block of 4 KiB is filled with a number of its own. */
async function createFilledVbd(lab: Lab): Promise<Vbd> {
  const vbd = await createVbd(lab, { sizeBytes: SIZE_BYTES });
  const file = await open(vbd.file, 'r+');
  const part = Buffer.alloc(MIB);
  for (let offset = 0; offset < SIZE_BYTES; offset += MIB) {
    for (let at = 0; at < MIB; at += BLOCK_BYTES) {
      stampedBlock(stampOf((offset + at) / BLOCK_BYTES), BLOCK_BYTES).copy(part, at);
    }
    await file.write(part, 0, MIB, offset);
  }
  await file.close();
  return vbd;
}

function stampOf(block: number): number {
  return block + 1;
}

async function startPeer(
  lab: Lab,
  kind: ServerKind,
  device: string,
  ...extraArgs: string[]
): Promise<Contender> {
  const unixPath = `/run/${kind.name.replaceAll(' ', '-')}.sock`;
  const server = await kind.start({ file: device, unixPath, isReadOnly: true, extraArgs });
  lab.cleanUp(() => server.stop());
  lab.step(`${kind.name} serves ${[device, ...extraArgs].join(' ')}`);
  return { name: kind.name, socket: unixPath, uri: server.uri, pid: server.pid };
}

/** A fast answer is worth nothing unless it is right. */
async function answersRightly(lab: Lab, { name, socket }: Contender): Promise<void> {
  const { client, description } = await NbdClient.open({ path: socket });
  strictEqual(description.sizeBytes, BigInt(SIZE_BYTES));
  const random = new SeededRandom(SEED);
  for (let count = 0; count < SAMPLED_BLOCKS; count++) {
    const block = random.below(SIZE_BYTES / BLOCK_BYTES);
    const data = await client.readOk(block * BLOCK_BYTES, BLOCK_BYTES);
    strictEqual(stampIn(data, 0, BLOCK_BYTES), stampOf(block), `${name}: block ${block}`);
  }
  const large = await client.readOk(0, MIB);
  for (let block = 0; block < MIB / BLOCK_BYTES; block++) {
    strictEqual(stampIn(large, block, BLOCK_BYTES), stampOf(block), `${name}: block ${block}`);
  }
  await client.disconnect();
  lab.step(`${name} answers rightly`);
}

/** Counters of our ring by their names without prefix. */
async function ringCounters(socketPath: string): Promise<Map<string, number>> {
  const { body } = await fetchText({ socketPath }, '/metrics');
  const lines = body.matchAll(/^xenblk_nbd_(ring_\w+|notifications_\w+)_total\{.*\} (\d+)$/gm);
  return new Map([...lines].map(([, name = '', value]) => [name, Number(value)]));
}

function describeRing(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  { requests }: ReadSample,
): string {
  const each = [...after].map(([name, value]) => {
    const grown = value - (before.get(name) ?? 0);
    return `${name.replaceAll('_', ' ')} ${(grown / requests).toFixed(3)}`;
  });
  return `for each request: ${each.join(', ')}`;
}

/** The kernel's threads for both ends, and waiting. */
function restUs(sample: ReadSample): number {
  const { requestsPerSecond, cpuUsPerRequest, generatorCpuUsPerRequest } = sample;
  return 1e6 / requestsPerSecond - cpuUsPerRequest - generatorCpuUsPerRequest;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function rateOf(load: ReadLoad, sample: ReadSample): number {
  return load.isCountedInBytes ? sample.bytesPerSecond : sample.requestsPerSecond;
}

function formatRate(load: ReadLoad, rate: number): string {
  return load.isCountedInBytes ? `${(rate / 1e6).toFixed(1)} MB/s` : `${rate.toFixed(0)} /s`;
}

function describe(load: ReadLoad, sample: ReadSample): string {
  const rate = formatRate(load, rateOf(load, sample));
  return `${rate}, ${sample.cpuUsPerRequest.toFixed(0)} us of its CPU a request`;
}

/** The median of a figure over the rounds of one contender. */
type Read = (figure: (sample: ReadSample) => number) => number;

const LABEL = 28;
const COLUMN = 16;

function heading(contenders: readonly Contender[]): string {
  return ' '.repeat(LABEL) + contenders.map(({ name }) => name.padStart(COLUMN)).join('');
}

/** Medians, what ours is to each, and where the time goes. */
function summary(
  load: ReadLoad,
  contenders: readonly Contender[],
  samples: ReadonlyMap<Contender, readonly ReadSample[]>,
): string[] {
  const [us = []] = samples.values();
  const ours = median(us.map((sample) => rateOf(load, sample)));
  const line = (label: string, format: (read: Read) => string): string =>
    label.padEnd(LABEL) +
    contenders
      .map((contender) => {
        const own = samples.get(contender) ?? [];
        return format((figure) => median(own.map(figure))).padStart(COLUMN);
      })
      .join('');
  const inUs = (value: number): string => `${value.toFixed(0)} us`;
  return [
    line(load.name, (read) =>
      formatRate(
        load,
        read((sample) => rateOf(load, sample)),
      ),
    ),
    line('  xenblk-nbd is', (read) => {
      const rate = read((sample) => rateOf(load, sample));
      return `${(ours / rate).toFixed(2)} x`;
    }),
    line('  CPU of the server', (read) => inUs(read((sample) => sample.cpuUsPerRequest))),
    line('  CPU of fio', (read) => inUs(read((sample) => sample.generatorCpuUsPerRequest))),
    line('  all else, per request', (read) => inUs(read(restUs))),
  ];
}
