// Fuzzes the NBD server: the handshake machine alone (fast), and whole servers with hostile
// clients.
//
//   node build/test/fuzz/nbd-fuzz.js --seconds 60 [--seed N] [--only handshake|server]
//   node build/test/fuzz/nbd-fuzz.js --seconds 60 --connect /run/some.sock    any listening server
//
// Prints the seed first; case K of a run has the seed (seed + K), so `--seed (seed + K) --cases 1`
// plays it again. Fails when something throws, hangs, grows, or does not answer a good client.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { BufferBackend, NbdError, NbdServer } from 'nbd-server-ts';
import { createExportInfo, type ExportEntry, Negotiation } from 'nbd-server-ts/protocol';
import { cutRandomly, freshSeed, Random } from '../nbd-server-ts/support/random.ts';
import { type Address, RawClient } from '../nbd-server-ts/support/raw-client.ts';
import {
  contextOption,
  goMessage,
  handshakeMessages,
  mutate,
  plainOption,
  requestMessages,
} from './nbd-messages.ts';

const SIZE = 64 * 1024;
const CASE_TIMEOUT_MS = 60_000;

/** How a run went. */
export interface FuzzReport {
  readonly cases: number;
  readonly seconds: number;
}

/** When a run ends: after a time, a number of cases, or whichever comes first. */
export interface FuzzLimits {
  readonly seconds: number;
  readonly cases?: number;
}

function entry(name: string): ExportEntry {
  return {
    ...createExportInfo({ sizeBytes: SIZE, canFlush: true, canFua: true, canTrim: true }),
    name,
    description: 'fuzzed',
    metaContextNames: ['base:allocation', 'x-test:one'],
  };
}

const entries = [entry('disk'), entry('locked')];
const catalog = {
  find: (name: string): ExportEntry | undefined =>
    name === '' ? entries[0] : entries.find((candidate) => candidate.name === name),
  list: (): readonly ExportEntry[] => entries,
};

/** One hostile handshake against the machine alone. Throws when a promise of it is broken. */
export function fuzzHandshakeCase(seed: number): void {
  const random = new Random(seed);
  const negotiation = new Negotiation(catalog, {
    tls: random.pick(['off', 'allow', 'require']),
    structuredReplies: !random.oneIn(4),
    extendedHeaders: !random.oneIn(4),
  });
  if (random.oneIn(50)) negotiation.shutDown();
  let stream: Buffer = Buffer.concat(handshakeMessages(random));
  if (random.oneIn(2)) stream = mutate(random, stream);
  let state = 'more';
  for (const piece of cutRandomly(stream, random)) {
    const step = negotiation.receive(piece);
    state = step.next;
    if (step.consumed > piece.length) throw new Error('It consumed more than there was.');
    if (state === 'more' && step.consumed < piece.length) throw new Error('It left bytes.');
    if ((step.send?.length ?? 0) > 2 ** 20) throw new Error('It sends without measure.');
    if ((step.reason ?? '').includes('\n')) throw new Error('Its reason has several lines.');
    if (state === 'startTls') negotiation.tlsEstablished();
    else if (state !== 'more') break;
  }
  const hasResult = negotiation.result !== undefined;
  if (hasResult !== (state === 'transmission')) throw new Error('Its result and state disagree.');
}

/** A backend that fails now and then, in each way a backend can. */
class FailingBackend extends BufferBackend {
  readonly #random: Random;

  constructor(random: Random) {
    super(new Uint8Array(SIZE));
    this.#random = random;
  }

  override read(target: Uint8Array, offset: number): void {
    if (this.#random.oneIn(20)) throw new NbdError('EIO', 'made to fail', { offset });
    super.read(target, offset);
  }

  override write(source: Uint8Array, offset: number): void {
    if (this.#random.oneIn(20)) throw Object.assign(new Error('made to fail'), { code: 'ENOSPC' });
    super.write(source, offset);
  }
}

/** What the server says of itself that must not happen. */
const mistakes: string[] = [];

function startServer(seed: number): NbdServer {
  const backend = new FailingBackend(new Random(seed));
  return new NbdServer({
    exports: [
      { name: 'disk', backend },
      { name: 'locked', backend, isReadOnly: true },
    ],
    log: ({ level, message }) => {
      if (level === 'error') mistakes.push(message);
    },
    limits: { bytesPerConnection: SIZE, requestsPerConnection: 8, lingerMs: 50 },
  });
}

/** A server under test: how to reach it, and how to see that it let go of its clients. */
export interface Reach {
  readonly address: Address;
  /** Resolves when no client is left, as far as that can be seen. */
  released(): Promise<void>;
}

/** A server that may be far away: nothing is known of its clients. */
export function foreignServer(path: string): Reach {
  return { address: { path }, released: () => Promise.resolve() };
}

function ownServer(server: NbdServer, path: string): Reach {
  return {
    address: { path },
    released: async () => {
      while (server.connections > 0) await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took too long.`)), CASE_TIMEOUT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** How long the queue of those who want to connect may be full. */
const QUEUE_FULL_MS = 10_000;

/**
 * Clients that leave at once can come faster than a server on a busy machine takes them in. The
 * kernel then says EAGAIN to the next one, who tries again.
 */
async function connect(address: Reach['address']): Promise<RawClient> {
  const startMs = performance.now();
  for (;;) {
    try {
      return await RawClient.connect(address);
    } catch (error) {
      const isFull = (error as NodeJS.ErrnoException).code === 'EAGAIN';
      if (!isFull || performance.now() - startMs > QUEUE_FULL_MS) throw error;
      await sleep(10);
    }
  }
}

/** One hostile client. Throws when the server does not let go of it. */
export async function fuzzServerCase(seed: number, reach: Reach): Promise<void> {
  const random = new Random(seed);
  const mode = random.below(4);
  const messages =
    mode === 0
      ? [...handshakeMessages(random), goMessage()]
      : [
          Buffer.from([0, 0, 0, 3]),
          ...(mode === 1 ? [] : [plainOption(mode === 2 ? 8 : 11)]),
          ...(mode > 1 && seed % 2 === 0 ? [contextOption()] : []),
          goMessage(),
        ];
  const isExtended = mode === 3;
  const requests = requestMessages(random, isExtended, SIZE);
  let stream: Buffer = Buffer.concat([...messages, ...requests]);
  if (random.oneIn(2)) stream = mutate(random, stream);
  const client = await connect(reach.address);
  for (const piece of cutRandomly(stream, random)) client.send(piece);
  if (random.oneIn(2)) {
    client.end();
    // A client may be in the middle of a payload that it announced, so the end need not come before
    // the connection is cut.
    await Promise.race([client.closed().catch(() => {}), sleep(20)]);
  }
  client.destroy();
  await within(reach.released(), 'The end of a connection');
  const mistake = mistakes.shift();
  if (mistake !== undefined) throw new Error(mistake);
}

/** A good client is served. */
export async function assertAlive(reach: Reach): Promise<void> {
  const client = await connect(reach.address);
  await within(client.greet(), 'The greeting');
  await within(client.go(), 'GO');
  client.request({ command: 3 });
  const { errno } = await within(client.simpleReply(), 'A flush');
  if (errno !== 0) throw new Error(`A good client got errno ${errno}.`);
  client.request({ command: 2 });
  await within(client.closed(), 'The end of a good client');
  client.destroy();
  await within(reach.released(), 'The end of a good connection');
}

function isOver(limits: FuzzLimits, startMs: number, cases: number): boolean {
  if (cases >= (limits.cases ?? Number.POSITIVE_INFINITY)) return true;
  return performance.now() - startMs >= limits.seconds * 1000;
}

function named(error: unknown, seed: number): Error {
  return new Error(`Case of seed ${seed} failed.`, { cause: error });
}

/** Many handshakes against the machine alone. */
export function fuzzHandshake(seed: number, limits: FuzzLimits): FuzzReport {
  const startMs = performance.now();
  let cases = 0;
  for (; !isOver(limits, startMs, cases); cases += 1) {
    try {
      fuzzHandshakeCase(seed + cases);
    } catch (error) {
      throw named(error, seed + cases);
    }
  }
  return { cases, seconds: (performance.now() - startMs) / 1000 };
}

async function fuzzReach(seed: number, limits: FuzzLimits, reach: Reach): Promise<FuzzReport> {
  const startMs = performance.now();
  let cases = 0;
  for (; !isOver(limits, startMs, cases); cases += 1) {
    try {
      await fuzzServerCase(seed + cases, reach);
      if (cases % 500 === 0) await assertAlive(reach);
    } catch (error) {
      throw named(error, seed + cases);
    }
  }
  await assertAlive(reach);
  return { cases, seconds: (performance.now() - startMs) / 1000 };
}

/** Many hostile clients against a server in this process. */
export async function fuzzServer(seed: number, limits: FuzzLimits): Promise<FuzzReport> {
  const server = startServer(seed);
  const directory = mkdtempSync(join(tmpdir(), 'nbd-fuzz-'));
  try {
    const path = join(directory, 's');
    await server.listen({ path });
    return await fuzzReach(seed, limits, ownServer(server, path));
  } finally {
    await server.close({ drainMs: 0 });
    rmSync(directory, { recursive: true });
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** The memory of the process in MiB, behind a collection where Node was started for that. */
function memoryMib(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss() / 2 ** 20;
}

/** Cases after which the heap has found its size. */
const SETTLED_CASES = 30_000;
const PARTS = 6;

/** Several runs in a row. Once the heap has found its size, it may hardly grow. */
async function fuzzInParts(
  seed: number,
  limits: FuzzLimits,
  print: (what: string, report: FuzzReport) => void,
): Promise<void> {
  const parts = limits.cases === undefined ? PARTS : 1;
  let settledMib: number | undefined;
  let cases = 0;
  for (let part = 1; part <= parts; part += 1) {
    const report = await fuzzServer(seed + cases, { ...limits, seconds: limits.seconds / parts });
    cases += report.cases;
    const mib = memoryMib();
    print(`server, part ${part} of ${parts}, ${mib.toFixed(1)} MiB`, report);
    if (settledMib !== undefined && mib > settledMib * 1.1) {
      throw new Error(`The memory grew from ${settledMib.toFixed(1)} to ${mib.toFixed(1)} MiB.`);
    }
    if (cases >= SETTLED_CASES) settledMib ??= mib;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      seconds: { type: 'string', default: '10' },
      cases: { type: 'string' },
      only: { type: 'string' },
      connect: { type: 'string' },
    },
  });
  const seed = values.seed === undefined ? freshSeed() : Number(values.seed);
  const total = Number(values.seconds);
  const cases = values.cases === undefined ? {} : { cases: Number(values.cases) };
  console.log(`seed ${seed}`);
  const print = (what: string, report: FuzzReport): void =>
    console.log(`${what}: ${report.cases} cases in ${report.seconds.toFixed(1)} s`);
  if (values.connect !== undefined) {
    print(
      'server',
      await fuzzReach(seed, { seconds: total, ...cases }, foreignServer(values.connect)),
    );
    return;
  }
  // The first server makes Node open what it keeps open, and is no part of the count.
  if (values.only !== 'handshake') await fuzzServer(seed, { seconds: 1, cases: 100 });
  await sleep(500);
  const descriptors = openDescriptors();
  const isBoth = values.only === undefined;
  const seconds = isBoth ? total / 2 : total;
  if (values.only !== 'server') print('handshake', fuzzHandshake(seed, { seconds, ...cases }));
  if (values.only !== 'handshake') {
    await fuzzInParts(seed, { seconds, ...cases }, print);
  }
  // Sockets that were destroyed are closed in a later turn.
  await sleep(500);
  const leaked = openDescriptors() - descriptors;
  console.log(`descriptors: ${descriptors} before, ${leaked} more after`);
  if (leaked > 0) throw new Error(`${leaked} descriptors were leaked.`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
