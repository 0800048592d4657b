// Chromium without a window, driven over its debugging pipe (--remote-debugging-pipe): messages in
// JSON that end in NUL, written to its descriptor 3 and read from 4. Nothing else is needed.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { findProgram, killAtExit } from '../support/program.ts';

/** Where Chromium is; undefined when it is not installed. */
export const CHROMIUM: string | undefined = findProgram('chromium');

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly message: string };
}

/** One page in a browser of its own. */
export class HeadlessPage {
  /** What the page complained of: console errors, exceptions, blocked requests. */
  readonly complaints: string[] = [];
  /** Addresses that the page asked for, its own included. */
  readonly requested: string[] = [];
  readonly #browser: ChildProcess;
  readonly #commands: Writable;
  readonly #waiting = new Map<number, (message: Message) => void>();
  readonly #folder = mkdtempSync(join(tmpdir(), 'xenblk-chromium-'));
  readonly #forget: () => void;
  #session: string | undefined;
  #onLoaded: () => void = () => undefined;
  #lastId = 0;
  #unparsed = '';

  private constructor(program: string) {
    this.#browser = spawn(
      program,
      [
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--no-first-run',
        '--disable-background-networking',
        `--user-data-dir=${this.#folder}`,
        '--remote-debugging-pipe',
      ],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], detached: true },
    );
    const { pid } = this.#browser;
    this.#forget = pid === undefined ? () => undefined : killAtExit(-pid);
    const [, , , commands, events] = this.#browser.stdio;
    this.#commands = commands as Writable;
    // Of a browser that ends: whoever waits for an answer is bounded in time.
    for (const stream of [commands, events]) stream?.on('error', () => undefined);
    (events as Readable).setEncoding('utf8').on('data', (text: string) => this.#take(text));
  }

  /** Starts a browser, opens `url`, and waits until it is loaded. */
  static async open(
    program: string,
    url: string,
    width: number,
    height: number,
  ): Promise<HeadlessPage> {
    const page = new HeadlessPage(program);
    const { targetId } = await page.#send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await page.#send('Target.attachToTarget', { targetId, flatten: true });
    page.#session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Log', 'Network'])
      await page.#send(`${domain}.enable`);
    await page.#send('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
    const loaded = new Promise<void>((resolve) => {
      page.#onLoaded = resolve;
    });
    await page.#send('Page.navigate', { url });
    await loaded;
    return page;
  }

  /** The value of an expression in the page; promises are waited for. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Buffer> {
    const options = { format: 'png', captureBeyondViewport: true };
    const { data } = await this.#send('Page.captureScreenshot', options);
    return Buffer.from(data as string, 'base64');
  }

  /** Ends the browser with all its processes, and forgets what they kept on disk. */
  async close(): Promise<void> {
    const { pid } = this.#browser;
    if (pid !== undefined && this.#browser.exitCode === null && this.#browser.signalCode === null) {
      const ended = new Promise((resolve) => this.#browser.once('exit', resolve));
      // The group, not the first process alone: its helpers outlive it, and go on writing in the
      // folder.
      process.kill(-pid, 'SIGKILL');
      await ended;
    }
    this.#forget();
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  async #send(method: string, params: object = {}): Promise<Readonly<Record<string, unknown>>> {
    this.#lastId += 1;
    const id = this.#lastId;
    const answered = new Promise<Message>((resolve) => this.#waiting.set(id, resolve));
    const sessionId = this.#session;
    this.#commands.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const { result, error } = await answered;
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  #take(text: string): void {
    const messages = (this.#unparsed + text).split('\0');
    this.#unparsed = messages.pop() ?? '';
    for (const message of messages) this.#dispatch(JSON.parse(message) as Message);
  }

  #dispatch({ id, method, params = {}, ...rest }: Message): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.({ id, ...rest });
      this.#waiting.delete(id);
    } else if (method === 'Page.loadEventFired') {
      this.#onLoaded();
    } else if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded') {
      this.complaints.push(JSON.stringify(params));
    } else if (method === 'Runtime.consoleAPICalled') {
      this.complaints.push(`console: ${JSON.stringify(params['args'])}`);
    } else if (method === 'Network.requestWillBeSent') {
      this.requested.push((params['request'] as { url: string }).url);
    }
  }
}
