/**
 * /dev/nbdN kept by `xenblk-nbd nbd-device`, and writers on it: what users of a device see while
 * its server is away.
 */
import { ok } from 'node:assert/strict';
import { constants, readFileSync } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { XENBLK_NBD } from '../../support/daemon.ts';
import { BackgroundProgram } from '../../support/program.ts';
import { eventually } from './commands.ts';
import type { Lab } from './scenario.ts';
import { ExpectedDisk, stampedBlock } from './stamped-disk.ts';

const START_TIMEOUT_MS = 240_000;
const STOP_TIMEOUT_MS = 120_000;

export class KeptDevice {
  readonly path: string;
  readonly #name: string;
  readonly #program: BackgroundProgram;

  private constructor(name: string, program: BackgroundProgram) {
    this.#name = name;
    this.path = `/dev/${name}`;
    this.#program = program;
  }

  /** Ended with the scenario, if not before: requests that wait fail then. */
  static async start(lab: Lab, index: number, socket: string): Promise<KeptDevice> {
    const name = `nbd${index}`;
    const args = ['nbd-device', `/dev/${name}`, '--unix', socket];
    const program = new BackgroundProgram(process.execPath, [XENBLK_NBD, ...args]);
    const device = new KeptDevice(name, program);
    lab.cleanUp(() => device.stop());
    const isReady = (stdout: string): true | undefined => stdout.includes('ready: ') || undefined;
    await program.waitForOutput(isReady, START_TIMEOUT_MS);
    return device;
  }

  async stop(): Promise<void> {
    this.#program.kill('SIGTERM');
    await this.#program.waitForEnd(STOP_TIMEOUT_MS);
  }

  /** Waits until it has been given a connection `count` times after the first. */
  async waitForReturn(count: number): Promise<void> {
    await this.#program.waitForOutput(
      (_, log) => (log.split('"event":"device-back"').length > count ? true : undefined),
      START_TIMEOUT_MS,
    );
  }

  /** Of its request queue, e.g. `io_timeout` in milliseconds. */
  setting(name: string): string {
    return readFileSync(`/sys/block/${this.#name}/queue/${name}`, 'utf8').trim();
  }

  /** Requests that the driver has and that are not answered. */
  requestsInFlight(): number {
    // Not by Node's threads: all of them may be waiting for this device.
    const numbers = readFileSync(`/sys/block/${this.#name}/inflight`, 'utf8');
    return numbers
      .trim()
      .split(/\s+/)
      .reduce((sum, text) => sum + Number(text), 0);
  }
}

/** One after the other, each writes blocks of its own, and every write waits for the disk. */
export class DeviceLoad {
  readonly #file: FileHandle;
  readonly #disk: ExpectedDisk;
  readonly #blockBytes: number;
  readonly #completed: number[];
  readonly #workers: Promise<void>[];
  #failure: unknown;
  #isStopping = false;

  private constructor(file: FileHandle, blockBytes: number, blockCount: number, writers: number) {
    this.#file = file;
    this.#blockBytes = blockBytes;
    this.#disk = new ExpectedDisk(blockBytes, blockCount);
    this.#completed = Array.from({ length: writers }, () => 0);
    this.#workers = this.#completed.map((_, writer) => this.#work(writer, blockCount));
  }

  /** At most four writers: Node has four threads that may wait for a file. */
  static async start(
    path: string,
    shape: { readonly blockBytes: number; readonly blockCount: number; readonly writers: number },
  ): Promise<DeviceLoad> {
    const file = await open(path, constants.O_RDWR | constants.O_SYNC);
    return new DeviceLoad(file, shape.blockBytes, shape.blockCount, shape.writers);
  }

  /** Writes done so far. */
  get completed(): number {
    return this.#completed.reduce((sum, count) => sum + count, 0);
  }

  /** Waits until each writer has done `count` more writes. */
  async waitForAll(count: number, timeoutMs: number): Promise<void> {
    const goals = this.#completed.map((done) => done + count);
    await eventually(`each writer has done ${count} more writes`, timeoutMs, () => {
      if (this.#failure !== undefined) throw this.#failure;
      return this.#completed.every((done, writer) => done >= (goals[writer] ?? 0)) || undefined;
    });
  }

  /** Ends the load, and compares what was written with the backing file. */
  async finish(backingFile: string): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#workers);
    await this.#file.close();
    if (this.#failure !== undefined) throw this.#failure;
    this.#disk.settle(await readFile(backingFile), 'the backing file');
  }

  async #work(writer: number, blockCount: number): Promise<void> {
    const writers = this.#completed.length;
    try {
      for (let stamp = 1 + writer; !this.#isStopping; stamp += writers) {
        const block = stamp % blockCount;
        ok(block % writers === (1 + writer) % writers, 'each block has one writer');
        this.#disk.sent(block, stamp);
        const bytes = stampedBlock(stamp, this.#blockBytes);
        await this.#file.write(bytes, 0, bytes.length, block * this.#blockBytes);
        this.#disk.acknowledged(block, stamp);
        this.#completed[writer] = (this.#completed[writer] ?? 0) + 1;
      }
    } catch (error) {
      this.#failure ??= error;
    }
  }
}
