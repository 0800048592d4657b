/**
 * The HTTP side of a daemon, which can be read and changes nothing:
 *
 *   /             the status page, one file
 *   /metrics      for Prometheus
 *   /healthz      200 when all is well, 503 when it is not, and why, as JSON
 *   /status.json  what the page shows: a report, and the samples of the last minutes
 *   /events       the same as server-sent events: `status` at first, then a `sample` each second
 */

import { readFileSync } from 'node:fs';
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Registry } from 'prom-client';
import { examineHealth } from './health.ts';
import { createMetrics } from './metrics.ts';
import type { Report, Sample } from './report.ts';
import { Sampler } from './sampler.ts';
import type { MonitorSource } from './source.ts';

/** Pages that may look on at once; each gets a few kilobytes a second. */
const WATCHERS_MAX = 32;
const CONNECTIONS_MAX = 128;
const SAMPLE_MS = 1_000;
const CLIENTS_SHOWN = 100;
const REQUEST_MS = 10_000;
const HEADER_BYTES_MAX = 8 * 1024;
/** What a watcher may leave unread before it is given up. */
const UNREAD_BYTES_MAX = 1024 * 1024;

const COMMON_HEADERS: OutgoingHttpHeaders = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'Content-Security-Policy':
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; " +
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

/** What a monitor is made with. */
export interface MonitorOptions {
  readonly source: MonitorSource;
  /** When the daemon started, as Unix time in ms. */
  readonly startedMs: number;
}

/** A running monitor. */
export interface Monitor {
  /** Not listening yet: that is the caller's. */
  readonly server: Server;
  /** Ends all connections and stops sampling. */
  close(): void;
}

/** Makes the server, and begins to take samples. */
export function openMonitor(options: MonitorOptions): Monitor {
  return new HttpMonitor(options);
}

class HttpMonitor implements Monitor {
  readonly server: Server;
  readonly #options: MonitorOptions;
  readonly #metrics: Registry;
  readonly #sampler: Sampler;
  readonly #watchers = new Set<ServerResponse>();
  readonly #timer: NodeJS.Timeout;
  /** The page, read when it is asked for first. */
  #page: Buffer | undefined;

  constructor(options: MonitorOptions) {
    this.#options = options;
    const { source } = options;
    this.#metrics = createMetrics(source);
    this.#sampler = new Sampler(() => source.vbds(), {
      nowMs: () => performance.now(),
      unixMs: () => Date.now(),
    });
    this.server = createServer(
      { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, maxHeaderSize: HEADER_BYTES_MAX },
      (request, response) => {
        this.#answer(request, response).catch((error: Error) => response.destroy(error));
      },
    );
    this.server.maxConnections = CONNECTIONS_MAX;
    this.#timer = setInterval(() => this.#tick(), SAMPLE_MS);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
    this.server.close();
    this.server.closeAllConnections();
  }

  #tick(): void {
    const sample = this.#sampler.sample();
    if (this.#watchers.size === 0) return;
    const text = event('sample', { report: this.#report(), sample });
    for (const watcher of this.#watchers) {
      // One that does not read is not told ever more.
      if (watcher.writableLength > UNREAD_BYTES_MAX) watcher.destroy();
      else watcher.write(text);
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume();
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      send(response, 405, 'text/plain', 'only GET is answered here\n', { Allow: 'GET, HEAD' });
      return;
    }
    const path = (request.url ?? '/').split('?')[0];
    switch (path) {
      case '/':
        this.#page ??= readPage();
        send(response, 200, 'text/html; charset=utf-8', this.#page);
        return;
      case '/metrics':
        send(response, 200, this.#metrics.contentType, await this.#metrics.metrics());
        return;
      case '/healthz': {
        const health = await examineHealth(this.#options.source);
        const status = health.status === 'ok' ? 200 : 503;
        send(response, status, 'application/json', `${JSON.stringify(health)}\n`);
        return;
      }
      case '/status.json':
        send(response, 200, 'application/json', `${JSON.stringify(this.#status())}\n`);
        return;
      case '/events':
        this.#watch(request, response);
        return;
      default:
        send(response, 404, 'text/plain', 'try /, /metrics, /healthz, /status.json or /events\n');
    }
  }

  #watch(request: IncomingMessage, response: ServerResponse): void {
    if (this.#watchers.size >= WATCHERS_MAX || request.method === 'HEAD') {
      send(response, 503, 'text/plain', `${WATCHERS_MAX} pages are watching already\n`);
      return;
    }
    response.writeHead(200, { ...COMMON_HEADERS, 'Content-Type': 'text/event-stream' });
    response.write(event('status', this.#status()));
    this.#watchers.add(response);
    response.on('close', () => this.#watchers.delete(response));
  }

  #status(): { report: Report; history: readonly Sample[] } {
    return { report: this.#report(), history: this.#sampler.history };
  }

  #report(): Report {
    const { source, startedMs } = this.#options;
    const clients = source.clients();
    return {
      version: source.version,
      pid: process.pid,
      startedMs,
      state: source.state(),
      vbds: source
        .vbds()
        .map(({ name, exportName, sizeBytes, isReadOnly, isWaiting, features }) => ({
          name,
          exportName,
          sizeBytes,
          isReadOnly,
          isWaiting,
          features,
        })),
      clientCount: clients.length,
      clients: clients.slice(0, CLIENTS_SHOWN),
    };
  }
}

/** The page lies beside the sources, which the package has as well. */
function readPage(): Buffer {
  return readFileSync(new URL('../../../src/monitor/status-page.html', import.meta.url));
}

function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string | Buffer,
  headers: OutgoingHttpHeaders = {},
): void {
  const length = Buffer.byteLength(body);
  response.writeHead(status, {
    ...COMMON_HEADERS,
    ...headers,
    'Content-Type': type,
    'Content-Length': length,
  });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}
