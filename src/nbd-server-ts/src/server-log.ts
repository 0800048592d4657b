// Log lines about clients: at most one per connection and kind, and a bounded number per second
// from all connections together, so that no client can fill a disk.

import type { Clock } from './clock.ts';

/** How bad it is. */
export type LogLevel = 'info' | 'warn' | 'error';

/** One line for people. `message` is one sentence without line breaks. */
export interface LogLine {
  /** 'info' for the normal, 'warn' for faults of clients and backends, 'error' for our own. */
  readonly level: LogLevel;
  /** Who it is about: an address, or `unix #3`. */
  readonly peer: string;
  /** What happened, as one sentence. */
  readonly message: string;
}

/** Where the lines go. */
export type LogSink = (line: LogLine) => void;

/** What a line is about; each kind is told once per connection. */
export type LogKind =
  | 'opened'
  | 'closed'
  | 'option'
  | 'protocol'
  | 'request'
  | 'backend'
  | 'tls'
  | 'limit'
  | 'socket'
  | 'internal';

const WINDOW_MS = 1000;
const LINES_PER_WINDOW = 50;

/** The bounded log of one server. */
export class ServerLog {
  readonly #sink: LogSink | undefined;
  readonly #clock: Clock;
  #windowStartMs = Number.NEGATIVE_INFINITY;
  #windowLines = 0;
  #droppedLines = 0;

  constructor(sink: LogSink | undefined, clock: Clock) {
    this.#sink = sink;
    this.#clock = clock;
  }

  /** Writes a line, or counts it when there were too many. */
  write(line: LogLine): void {
    if (this.#sink === undefined) return;
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      const dropped = this.#droppedLines;
      this.#windowStartMs = nowMs;
      this.#windowLines = 0;
      this.#droppedLines = 0;
      if (dropped > 0) {
        const message = `${dropped} lines about clients were left out.`;
        this.#sink({ level: 'warn', peer: 'all', message });
      }
    }
    this.#windowLines += 1;
    if (this.#windowLines > LINES_PER_WINDOW) this.#droppedLines += 1;
    else this.#sink(line);
  }

  /** The log of one connection. */
  forPeer(peer: string): PeerLog {
    return new PeerLog(this, peer);
  }
}

/** The log of one connection: each kind once. */
export class PeerLog {
  readonly #log: ServerLog;
  readonly #peer: string;
  readonly #told = new Set<LogKind>();

  constructor(log: ServerLog, peer: string) {
    this.#log = log;
    this.#peer = peer;
  }

  info(kind: LogKind, message: string): void {
    this.#tell('info', kind, message);
  }

  warn(kind: LogKind, message: string): void {
    this.#tell('warn', kind, message);
  }

  error(kind: LogKind, message: string): void {
    this.#tell('error', kind, message);
  }

  #tell(level: LogLevel, kind: LogKind, message: string): void {
    if (this.#told.has(kind)) return;
    this.#told.add(kind);
    this.#log.write({ level, peer: this.#peer, message });
  }
}
