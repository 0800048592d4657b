// The other 990 connections: clients that are silent, slow or stuck, in every way that costs a
// server something. They stay as they are while somebody else is measured.
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Cmd, goData, Opt, requestHeader } from '../support/nbd-wire.ts';

/** As on a server with its default limits. */
export const CROWD_SIZE = 990;

const READ_BYTES = 64 * 1024;
const READS_ASKED = 64;
const PAYLOAD_BYTES = 256 * 1024;
/** How much a slow reader takes at a time, and how often. */
const SIP_BYTES = 4096;
const SIP_MS = 500;
const CONNECTING_AT_ONCE = 50;
/** Until what they asked for has been done, as far as it can be. */
const SETTLE_MS = 1000;

function go(): Buffer {
  const data = goData('', []);
  const head = Buffer.alloc(16);
  head.write('IHAVEOPT', 'latin1');
  head.writeUInt32BE(Opt.GO, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([Buffer.from([0, 0, 0, 3]), head, data]);
}

function reads(): Buffer {
  const headers = Array.from({ length: READS_ASKED }, (_, index) =>
    requestHeader(
      { type: Cmd.READ, offset: index * READ_BYTES, length: READ_BYTES },
      BigInt(index + 1),
    ),
  );
  return Buffer.concat(headers);
}

function halfAWrite(): Buffer {
  const payload = Buffer.alloc(PAYLOAD_BYTES);
  const header = requestHeader({ type: Cmd.WRITE, offset: 0, payload }, 1n);
  return Buffer.concat([header, payload.subarray(0, PAYLOAD_BYTES / 2 + 100)]);
}

/** One way to be a burden: what is sent behind the connection, and whether replies are taken. */
interface Manner {
  readonly name: string;
  readonly sends: Buffer;
  readonly readsSlowly: boolean;
}

const MANNERS: readonly Manner[] = [
  { name: 'say nothing', sends: Buffer.alloc(0), readsSlowly: false },
  { name: 'are idle', sends: go(), readsSlowly: false },
  {
    name: 'stop in a header',
    sends: Buffer.concat([go(), reads().subarray(0, 15)]),
    readsSlowly: false,
  },
  { name: 'stop in a payload', sends: Buffer.concat([go(), halfAWrite()]), readsSlowly: false },
  { name: 'read nothing', sends: Buffer.concat([go(), reads()]), readsSlowly: false },
  { name: 'read slowly', sends: Buffer.concat([go(), reads()]), readsSlowly: true },
];

/** All of them, connected to one Unix socket. */
export class Crowd {
  readonly #path: string;
  readonly #sockets = new Map<number, Socket>();
  readonly #timer: NodeJS.Timeout;
  #isOver = false;
  /** How often one was thrown out and came again. */
  returnCount = 0;

  private constructor(path: string) {
    this.#path = path;
    this.#timer = setInterval(() => this.#sip(), SIP_MS);
  }

  static async gather(path: string, size: number): Promise<Crowd> {
    const crowd = new Crowd(path);
    for (let first = 0; first < size; first += CONNECTING_AT_ONCE) {
      const count = Math.min(CONNECTING_AT_ONCE, size - first);
      await Promise.all(Array.from({ length: count }, (_, index) => crowd.#join(first + index)));
    }
    await sleep(SETTLE_MS);
    return crowd;
  }

  /** Who they are, for the report. */
  get description(): string {
    const each = Math.floor(this.#sockets.size / MANNERS.length);
    return MANNERS.map(({ name }) => `${each} ${name}`).join(', ');
  }

  get size(): number {
    return this.#sockets.size;
  }

  leave(): void {
    this.#isOver = true;
    clearInterval(this.#timer);
    for (const socket of this.#sockets.values()) socket.destroy();
  }

  #join(place: number): Promise<void> {
    const socket = createConnection(this.#path);
    this.#sockets.set(place, socket);
    return new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        socket.on('error', () => undefined);
        socket.write(mannerOf(place).sends);
      });
      // Node reads until its buffer is full, and no further until somebody takes of it.
      socket.once('readable', resolve);
      socket.once('close', () => {
        if (this.#isOver) return;
        this.returnCount += 1;
        this.#join(place).catch(() => undefined);
      });
    });
  }

  #sip(): void {
    for (const [place, socket] of this.#sockets) {
      if (mannerOf(place).readsSlowly) socket.read(SIP_BYTES);
    }
  }
}

function mannerOf(place: number): Manner {
  return MANNERS[place % MANNERS.length] as Manner;
}
