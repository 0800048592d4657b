// `xenblk-nbd serve` on a vbd of the lab, as its users start it. The bounds are those of an
// emulated machine that shares its processor with others: a start takes three seconds on a quiet
// one and a minute at worst; only failures wait so long.
import { ok, strictEqual } from 'node:assert/strict';
import type { Address } from '../../support/byte-connection.ts';
import { XENBLK_NBD } from '../../support/daemon.ts';
import { BackgroundProgram, describeEnd, type ProgramResult } from '../../support/program.ts';
import type { Lab } from './scenario.ts';
import type { Vbd } from './vbd-fixture.ts';

const READY_TIMEOUT_MS = 240_000;
const STOP_TIMEOUT_MS = 120_000;

/** A running daemon. */
export class Served {
  readonly socket: string;
  readonly address: Address;
  readonly #program: BackgroundProgram;

  constructor(program: BackgroundProgram, socket: string) {
    this.#program = program;
    this.socket = socket;
    this.address = { path: socket };
  }

  get pid(): number {
    return this.#program.pid;
  }

  /** Everything it has logged. */
  get log(): string {
    return this.#program.stderr;
  }

  /** SIGTERM, as a service manager stops it: it must end with exit code 0. */
  async stop(): Promise<void> {
    const early = this.#program.result;
    ok(early === undefined, `the daemon had ended by itself\n${this.log}`);
    this.#program.kill('SIGTERM');
    const result = await this.#program.waitForEnd(STOP_TIMEOUT_MS);
    strictEqual(describeEnd(result), 'exit code 0', this.log);
  }

  /** SIGKILL, and waits until the process is gone. */
  kill(): Promise<ProgramResult> {
    this.#program.kill('SIGKILL');
    return this.#program.waitForEnd(STOP_TIMEOUT_MS);
  }

  /** Waits until it has ended by itself. */
  waitForEnd(timeoutMs: number): Promise<ProgramResult> {
    return this.#program.waitForEnd(timeoutMs);
  }

  /** Waits until its log says `words`. */
  waitForLog(words: RegExp, timeoutMs: number): Promise<true> {
    return this.#program.waitForOutput(
      (_stdout, stderr) => (words.test(stderr) ? true : undefined),
      timeoutMs,
    );
  }

  get hasEnded(): boolean {
    return this.#program.result !== undefined;
  }
}

/** Starts the daemon and waits for its `ready:` line; killed at the end if it still runs. */
export async function serveVbd(lab: Lab, vbd: Vbd, ...options: string[]): Promise<Served> {
  const socket = `/run/${vbd.name}.sock`;
  const startMs = Date.now();
  const args = ['serve', vbd.name, '--unix', socket, '--log-level', 'debug', ...options];
  const program = new BackgroundProgram(process.execPath, [XENBLK_NBD, ...args]);
  const served = new Served(program, socket);
  lab.cleanUp(async () => {
    if (served.hasEnded) return;
    lab.step(`the daemon still runs; the end of its log:\n${served.log.slice(-6000)}`);
    await served.kill();
  });
  await program.waitForOutput(
    (stdout) => (stdout.includes('ready: ') ? true : undefined),
    READY_TIMEOUT_MS,
  );
  lab.step(`serve ${vbd.name} ${options.join(' ')}: ready after ${Date.now() - startMs} ms`);
  return served;
}
