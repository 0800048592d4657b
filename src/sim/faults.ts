/**
 * Trouble on purpose: what may go wrong in a simulated host, the text form of it (the LIST of
 * `--simulate-faults`), and the random numbers that decide. The same seed gives the same decisions
 * in the same order.
 */

import {
  parseFlag,
  parseList,
  parseNumber,
  SimulationOptionError,
  unknownName,
} from './features.ts';

/** What goes wrong. Without any of it the host is well behaved. */
export interface SimulatedFaults {
  /** Decides everything random below; 1 when not given. */
  readonly seed: number;
  /** Part of all requests that the back end answers with an error, 0..1. */
  readonly errorRate: number;
  /** How late requests are executed and answered: random up to this. */
  readonly delayMs: number;
  /** The back end restarts every so often; 0 for never. */
  readonly restartSeconds: number;
  /** The disk gets another size, once. */
  readonly resize: { readonly sizeBytes: number; readonly afterSeconds: number } | undefined;
  /** The disk is unplugged after this time; 0 for never. */
  readonly unplugSeconds: number;
  /** The back end lies. */
  readonly hostile: boolean;
}

/** A host that is well behaved. */
export const NO_FAULTS: SimulatedFaults = {
  seed: 1,
  errorRate: 0,
  delayMs: 0,
  restartSeconds: 0,
  resize: undefined,
  unplugSeconds: 0,
  hostile: false,
};

const FAULT_NAMES =
  'seed=N, error=RATE, delay=MS, restart=SECONDS, resize=SIZE@SECONDS, unplug=SECONDS, hostile';
const MAX_SEED = 2 ** 32 - 1;
const MAX_DELAY_MS = 60_000;
const MAX_SECONDS = 86_400;

/**
 * Parses the list of `--simulate-faults`, e.g. `seed=7,error=0.01,restart=2`.
 *
 * @throws SimulationOptionError
 */
export function parseSimulatedFaults(list: string): SimulatedFaults {
  const faults: { -readonly [Name in keyof SimulatedFaults]: SimulatedFaults[Name] } = {
    ...NO_FAULTS,
  };
  for (const [name, value] of parseList(list, 'simulate-faults')) {
    switch (name) {
      case 'seed':
        faults.seed = parseNumber(name, value, 0, MAX_SEED);
        break;
      case 'error':
        faults.errorRate = parseDecimal(name, value, 1);
        break;
      case 'delay':
        faults.delayMs = parseDecimal(name, value, MAX_DELAY_MS);
        break;
      case 'restart':
        faults.restartSeconds = parseDecimal(name, value, MAX_SECONDS);
        break;
      case 'unplug':
        faults.unplugSeconds = parseDecimal(name, value, MAX_SECONDS);
        break;
      case 'resize':
        faults.resize = parseResize(value);
        break;
      case 'hostile':
        faults.hostile = parseFlag(name, value);
        break;
      default:
        throw unknownName(name, 'fault', FAULT_NAMES);
    }
  }
  return faults;
}

function parseDecimal(name: string, value: string | undefined, maximum: number): number {
  const isNumber =
    value !== undefined && /^(?:[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})$/.test(value);
  const number = isNumber ? Number(value) : Number.NaN;
  if (!(number > 0 && number <= maximum)) {
    throw new SimulationOptionError(
      `${name}=${value ?? ''} cannot be used; give a number above 0 and up to ${maximum}.`,
    );
  }
  return number;
}

function parseResize(value: string | undefined): SimulatedFaults['resize'] {
  const [size, seconds, rest] = (value ?? '').split('@');
  if (size === undefined || seconds === undefined || rest !== undefined) {
    throw new SimulationOptionError(
      `resize=${value ?? ''} cannot be used; write the new size and when, such as resize=2G@10.`,
    );
  }
  return {
    sizeBytes: parseSizeBytes(size),
    afterSeconds: parseDecimal('resize', seconds, MAX_SECONDS),
  };
}

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
  P: 2 ** 50,
};

/**
 * A size such as `64M`, `2G`, `1T` or `1048576`: bytes, with binary units. At most 2^53 bytes, and
 * a multiple of 512, since disks have no other sizes.
 *
 * @throws SimulationOptionError
 */
export function parseSizeBytes(text: string): number {
  const parts = /^([0-9]{1,16})([KMGTP]?)(?:iB|B)?$/i.exec(text.trim());
  const unitBytes = UNIT_BYTES[(parts?.[2] ?? '').toUpperCase()] ?? 0;
  const sizeBytes = Number(parts?.[1] ?? 0) * unitBytes;
  if (!(sizeBytes > 0 && sizeBytes <= Number.MAX_SAFE_INTEGER)) {
    throw new SimulationOptionError(
      `"${text.slice(0, 40)}" is not a size; write a number and a unit, such as 64M, 2G or 1T.`,
    );
  }
  if (sizeBytes % 512 !== 0) {
    throw new SimulationOptionError(
      `A size of ${sizeBytes} bytes is not a multiple of 512, as that of a disk must be.`,
    );
  }
  return sizeBytes;
}

/** Random numbers from a seed (mulberry32): small, fast, the same everywhere. */
export class SeededRandom {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** In 0..1, without 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer in 0..`below`-1. */
  below(below: number): number {
    return Math.floor(this.next() * below);
  }
}
