// Servers for tests: on a Unix socket in a directory that goes away with the test, and backends
// whose calls a test can hold back, count and fail.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type BlockBackend,
  BufferBackend,
  type LogLine,
  NbdServer,
  type NbdServerOptions,
} from 'nbd-server-ts';
import type { Test } from 'tap';
import { ManualClock } from './manual-clock.ts';
import { RawClient } from './raw-client.ts';

/** A directory that is removed when the test is over. */
export function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'nbd-server-ts-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A server that is closed when the test is over. */
export interface TestServer {
  readonly server: NbdServer;
  readonly path: string;
  /** What was logged, as `peer: message`. */
  readonly log: LogLine[];
  connect(): Promise<RawClient>;
}

export async function startServer(t: Test, options: NbdServerOptions = {}): Promise<TestServer> {
  const path = join(temporaryDirectory(t), 's');
  const log: LogLine[] = [];
  const server = new NbdServer({
    exports: [{ name: 'disk', backend: new BufferBackend(new Uint8Array(1024 * 1024)) }],
    log: (line) => log.push(line),
    ...options,
  });
  await server.listen({ path });
  t.teardown(async () => {
    for (const { backend } of options.exports ?? []) {
      if (backend instanceof HeldBackend) backend.releaseAll();
    }
    const closing = server.close({ drainMs: 0 });
    if (options.clock instanceof ManualClock) options.clock.advance(1);
    await closing;
  });
  return { server, path, log, connect: () => RawClient.connect({ path }) };
}

/** A client in the transmission phase of the default export. */
export async function transmitting(
  server: TestServer,
  options: { structured?: boolean; extended?: boolean; contexts?: boolean } = {},
): Promise<RawClient> {
  const client = await server.connect();
  await client.greet();
  for (const [isWanted, option] of [
    [options.structured, 8],
    [options.extended, 11],
  ] as const) {
    if (isWanted !== true) continue;
    client.option(option);
    await client.optionReplies();
  }
  if (options.contexts === true) {
    client.option(10, "00000000 00000001 0000000f 'base:allocation'");
    await client.optionReplies();
  }
  await client.go();
  return client;
}

/** A call of a backend that waits for the test. */
export interface HeldCall {
  readonly name: string;
  readonly offset: number;
  readonly lengthBytes: number;
  finish(error?: Error): void;
}

/** A memory disk whose calls wait until the test finishes them, in any order. */
export class HeldBackend implements BlockBackend {
  readonly sizeBytes: number;
  readonly bytes: Uint8Array;
  readonly calls: HeldCall[] = [];
  /** Bytes that were asked for by reads. */
  readBytes = 0;
  #wake: () => void = () => {};
  #isReleased = false;

  constructor(sizeBytes: number = 1024 * 1024) {
    this.sizeBytes = sizeBytes;
    this.bytes = new Uint8Array(sizeBytes);
  }

  /** Resolves when at least `count` calls wait. */
  async waitForCalls(count: number): Promise<void> {
    while (this.calls.length < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Finishes all calls, and those that come. */
  releaseAll(): void {
    this.#isReleased = true;
    for (const call of this.calls.splice(0)) call.finish();
  }

  /** Takes the oldest waiting call. */
  async nextCall(): Promise<HeldCall> {
    await this.waitForCalls(1);
    const call = this.calls.shift();
    if (call === undefined) throw new Error('There is no call.');
    return call;
  }

  #hold(name: string, offset: number, lengthBytes: number, work: () => void): Promise<void> {
    if (this.#isReleased) {
      work();
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.calls.push({
        name,
        offset,
        lengthBytes,
        finish: (error) => {
          if (error !== undefined) {
            reject(error);
            return;
          }
          work();
          resolve();
        },
      });
      this.#wake();
    });
  }

  read(target: Uint8Array, offset: number): Promise<void> {
    this.readBytes += target.length;
    return this.#hold('read', offset, target.length, () =>
      target.set(this.bytes.subarray(offset, offset + target.length)),
    );
  }

  write(source: Uint8Array, offset: number): Promise<void> {
    return this.#hold('write', offset, source.length, () => this.bytes.set(source, offset));
  }

  flush(): Promise<void> {
    return this.#hold('flush', 0, 0, () => {});
  }

  trim(offset: number, lengthBytes: number): Promise<void> {
    return this.#hold('trim', offset, lengthBytes, () => {});
  }
}

/** Gives timers, sockets and promises of this process a few turns. */
export async function settle(turns = 5): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Waits until something that other turns of the loop bring about is true. */
export async function until(isTrue: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + 30_000;
  while (!isTrue()) {
    if (performance.now() > deadlineMs) throw new Error(`It did not come true: ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
