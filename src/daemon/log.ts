/**
 * The log: pino's JSON on stderr, one line for each event that an operator would want to know.
 * On a terminal the same events are printed as plain lines. stdout belongs to the `ready:` lines.
 */

import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino';
import type { LogEvent } from './log-events.ts';

/** Least severe level that is written. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

/** All levels, the least severe first. */
export const LOG_LEVELS: readonly LogLevel[] = [
  'trace',
  'debug',
  'info',
  'warn',
  'error',
  'fatal',
  'silent',
];

/** What the daemon logs with. Each call names a stable event and its details. */
export interface Logger {
  debug(event: LogEvent, details: LogDetails, message: string): void;
  info(event: LogEvent, details: LogDetails, message: string): void;
  warn(event: LogEvent, details: LogDetails, message: string): void;
  error(event: LogEvent, details: LogDetails, message: string): void;
}

/** What goes beside the message: numbers and words, for programs. */
export type LogDetails = Readonly<Record<string, string | number | boolean | undefined>>;

/** The log of this process, on `stderr`. */
export function createLogger(level: LogLevel, stderr: NodeJS.WriteStream): Logger {
  const destination = stderr.isTTY ? plainLines(stderr) : stderr;
  const log = pino({ level, base: null, messageKey: 'message' }, destination);
  return {
    debug: (event, details, message) => write(log, 'debug', event, details, message),
    info: (event, details, message) => write(log, 'info', event, details, message),
    warn: (event, details, message) => write(log, 'warn', event, details, message),
    error: (event, details, message) => write(log, 'error', event, details, message),
  };
}

function write(
  log: PinoLogger,
  level: 'debug' | 'info' | 'warn' | 'error',
  event: LogEvent,
  details: LogDetails,
  message: string,
): void {
  log[level]({ event, ...details }, message);
}

/** Turns pino's JSON lines into `12:34:56 info  message`. */
function plainLines(stream: NodeJS.WriteStream): DestinationStream {
  return {
    write(line: string): void {
      const { time, level, message } = JSON.parse(line) as {
        time: number;
        level: number;
        message: string;
      };
      const clock = new Date(time).toTimeString().slice(0, 8);
      const name = pino.levels.labels[level] ?? 'info';
      stream.write(`${clock} ${name.padEnd(5)} ${message}\n`);
    },
  };
}
