/** Shows a daemon until the user has seen enough; without a terminal, once. */

import type { ReadStream, WriteStream } from 'node:tty';
import type { ListenAddress } from '../daemon/index.ts';
import { DaemonError } from '../daemon/index.ts';
import type { Sample } from '../monitor/index.ts';
import { type DaemonEvent, daemonEvents } from './event-stream.ts';
import { drawScreen, type View } from './screen.ts';

/** Which daemon is shown, and where. */
export interface TopOptions {
  readonly address: ListenAddress;
  /** One JSON object, and no screen. */
  readonly isJson: boolean;
  readonly stdin: ReadStream;
  readonly stdout: WriteStream;
  readonly env: NodeJS.ProcessEnv;
}

const SAMPLES_MAX = 300;
const RETRY_MS = 1_000;
const PLAIN_COLUMNS = 80;
const PLAIN_ROWS = 24;
const KEYS = 'q: quit   n, p: next and previous vbd';

// Of the terminal: another screen, without a cursor; and back again (xterm's control sequences).
const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR = '\x1b[2J';
const CLEAR_LINE = '\x1b[K';

/** @throws DaemonError when there is no daemon to show, or it ends before there is anything. */
export async function runTop(options: TopOptions): Promise<void> {
  if (options.isJson || !options.stdout.isTTY) await showOnce(options);
  else await new Screen(options).run();
}

async function showOnce({ address, isJson, stdout, env }: TopOptions): Promise<void> {
  const stop = new AbortController();
  try {
    let view: View | undefined;
    for await (const event of daemonEvents(address, stop.signal)) {
      view = follow(view, event);
      const sample = view.samples.at(-1);
      // The first second of a daemon has no rates yet.
      if (sample === undefined) continue;
      if (isJson) stdout.write(`${JSON.stringify({ report: view.report, sample })}\n`);
      else {
        const isUnicode = showsUnicode(env);
        const size = { columns: PLAIN_COLUMNS, rows: PLAIN_ROWS, isUnicode };
        const now = { vbdIndex: 0, nowMs: Date.now(), footer: '' };
        stdout.write(
          `${drawScreen(view, { ...size, ...now })
            .join('\n')
            .trimEnd()}\n`,
        );
      }
      return;
    }
    throw new DaemonError('the daemon ended before there was anything to see');
  } finally {
    stop.abort();
  }
}

/** What is known after an event. */
function follow(view: View | undefined, event: DaemonEvent): View {
  const samples: readonly Sample[] =
    event.name === 'status' ? event.history : [...(view?.samples ?? []), event.sample];
  return { report: event.report, samples: samples.slice(-SAMPLES_MAX) };
}

class Screen {
  readonly #options: TopOptions;
  readonly #stop = new AbortController();
  #view: View | undefined;
  #vbdIndex = 0;
  #trouble: string | undefined;

  constructor(options: TopOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { stdin, stdout } = this.#options;
    const redraw = (): void => {
      stdout.write(CLEAR);
      this.#draw();
    };
    const stop = (): void => this.#stop.abort();
    const takeKeys = (keys: Buffer): void => this.#take(keys.toString('latin1'));
    process.on('SIGTERM', stop).on('SIGINT', stop);
    stdout.on('resize', redraw);
    if (stdin.isTTY) stdin.setRawMode(true).on('data', takeKeys).resume();
    stdout.write(ENTER);
    try {
      await this.#follow();
    } finally {
      stdout.write(LEAVE);
      stdout.off('resize', redraw);
      if (stdin.isTTY) stdin.setRawMode(false).off('data', takeKeys).pause();
      process.off('SIGTERM', stop).off('SIGINT', stop);
    }
  }

  /** Shows the daemon; one that goes away may come back. */
  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        for await (const event of daemonEvents(this.#options.address, signal)) {
          this.#view = follow(this.#view, event);
          this.#trouble = undefined;
          this.#draw();
        }
        this.#trouble = 'the daemon ended; waiting for it to come back';
      } catch (error) {
        // Without having seen anything, the address is more likely wrong than the daemon gone.
        if (!(error instanceof DaemonError) || this.#view === undefined) throw error;
        this.#trouble = error.message;
      }
      if (signal.aborted) return;
      this.#draw();
      await pause(RETRY_MS, signal);
    }
  }

  #take(keys: string): void {
    for (const key of keys) {
      if (key === 'q' || key === '\x03') this.#stop.abort();
      else if (key === 'n') this.#vbdIndex += 1;
      else if (key === 'p') this.#vbdIndex += Math.max(1, this.#view?.report.vbds.length ?? 1) - 1;
    }
    this.#draw();
  }

  #draw(): void {
    if (this.#view === undefined) return;
    const { stdout, env } = this.#options;
    const lines = drawScreen(this.#view, {
      columns: stdout.columns,
      rows: stdout.rows,
      vbdIndex: this.#vbdIndex,
      isUnicode: showsUnicode(env),
      nowMs: Date.now(),
      footer: this.#trouble ?? KEYS,
    });
    // Lines are written over those before, so that nothing flickers.
    stdout.write(HOME + lines.map((line) => line + CLEAR_LINE).join('\r\n'));
  }
}

/** As the C library decides it (setlocale(3)). */
function showsUnicode(env: NodeJS.ProcessEnv): boolean {
  const locale = env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '';
  return /utf-?8/i.test(locale);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
