/**
 * What a simulated back end offers, and the text form of it: the LIST of `--simulate-features`.
 */

import { cpus } from 'node:os';
import { MAX_INDIRECT_SEGMENTS, MAX_RING_PAGE_ORDER } from '../blkif/index.ts';

/** What the back end offers. Sizes are bytes. */
export interface SimulatedFeatures {
  /** Rings have up to 2^this pages; 0..4. */
  readonly ringPageOrder: number;
  /** Rings per device; 1 or more. */
  readonly queues: number;
  /** Segments of an indirect request; 0 for no indirect requests, at most 4096. */
  readonly indirect: number;
  readonly persistent: boolean;
  readonly flush: boolean;
  readonly barrier: boolean;
  readonly discard: boolean;
  /** Logical block: 512, 1024, 2048 or 4096. */
  readonly sectorSize: number;
  readonly readOnly: boolean;
}

/** What Linux's xen-blkback offers for a file. */
export function defaultFeatures(): SimulatedFeatures {
  return {
    ringPageOrder: 4,
    queues: cpus().length,
    indirect: 256,
    persistent: true,
    flush: true,
    barrier: true,
    discard: true,
    sectorSize: 512,
    readOnly: false,
  };
}

/** The plainest back end that can be: where a list of features starts from. */
export const NO_FEATURES: SimulatedFeatures = {
  ringPageOrder: 0,
  queues: 1,
  indirect: 0,
  persistent: false,
  flush: false,
  barrier: false,
  discard: false,
  sectorSize: 512,
  readOnly: false,
};

/** An option of the simulation that cannot be used. The message is one sentence for people. */
export class SimulationOptionError extends Error {
  /** Always `SimulationOptionError`. */
  override readonly name = 'SimulationOptionError';
}

const FEATURE_NAMES =
  'ring-page-order=N, queues=N, indirect=N, persistent, flush, barrier, discard, sector-size=N, ' +
  'read-only';
const MAX_QUEUES = 64;

/**
 * Parses the list of `--simulate-features`, e.g. `ring-page-order=2,flush,sector-size=4096`. The
 * list is the whole offer: what it does not name is not offered.
 *
 * @throws SimulationOptionError
 */
export function parseSimulatedFeatures(list: string): SimulatedFeatures {
  const features: { -readonly [Name in keyof SimulatedFeatures]: SimulatedFeatures[Name] } = {
    ...NO_FEATURES,
  };
  for (const [name, value] of parseList(list, 'simulate-features')) {
    switch (name) {
      case 'ring-page-order':
        features.ringPageOrder = parseNumber(name, value, 0, MAX_RING_PAGE_ORDER);
        break;
      case 'queues':
        features.queues = parseNumber(name, value, 1, MAX_QUEUES);
        break;
      case 'indirect':
        features.indirect = parseNumber(name, value, 0, MAX_INDIRECT_SEGMENTS);
        break;
      case 'sector-size':
        features.sectorSize = parseNumber(name, value, 512, 4096);
        break;
      case 'persistent':
      case 'flush':
      case 'barrier':
      case 'discard':
        features[name] = parseFlag(name, value);
        break;
      case 'read-only':
        features.readOnly = parseFlag(name, value);
        break;
      default:
        throw unknownName(name, 'feature', FEATURE_NAMES);
    }
  }
  checkFeatures(features);
  return features;
}

/** @throws SimulationOptionError for a sector size that is no power of two in 512..4096. */
export function checkFeatures(features: SimulatedFeatures): void {
  if (![512, 1024, 2048, 4096].includes(features.sectorSize)) {
    throw new SimulationOptionError(
      `sector-size=${features.sectorSize} cannot be simulated; give 512, 1024, 2048 or 4096.`,
    );
  }
}

/**
 * A comma-separated list of `name` and `name=value`, each name at most once. An empty list is
 * refused: it is more likely a variable that was not set than a wish.
 */
export function parseList(list: string, option: string): [name: string, value?: string][] {
  const seen = new Set<string>();
  return list.split(',').map((item): [string, string?] => {
    const equals = item.indexOf('=');
    const name = (equals < 0 ? item : item.slice(0, equals)).trim();
    if (name === '') {
      throw new SimulationOptionError(
        `--${option} "${list}" has an empty item; write names separated by single commas.`,
      );
    }
    if (seen.has(name)) {
      throw new SimulationOptionError(`--${option} names ${name} twice; give it once.`);
    }
    seen.add(name);
    return equals < 0 ? [name] : [name, item.slice(equals + 1).trim()];
  });
}

/** An integer of a list. @throws SimulationOptionError */
export function parseNumber(
  name: string,
  value: string | undefined,
  minimum: number,
  maximum: number,
): number {
  const number = value !== undefined && /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number >= minimum && number <= maximum)) {
    throw new SimulationOptionError(
      `${name}=${value ?? ''} cannot be used; give a number from ${minimum} to ${maximum}.`,
    );
  }
  return number;
}

/** A name without a value. @throws SimulationOptionError */
export function parseFlag(name: string, value: string | undefined): true {
  if (value !== undefined) {
    throw new SimulationOptionError(`${name} takes no value; write ${name} alone or leave it out.`);
  }
  return true;
}

export function unknownName(name: string, what: string, known: string): SimulationOptionError {
  return new SimulationOptionError(
    `"${name.slice(0, 40)}" is not a simulated ${what}; known are ${known}.`,
  );
}
