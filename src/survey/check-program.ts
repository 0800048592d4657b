/** Checks of the program itself: Node, the native library, the architecture, open files. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostAbi } from '../blkif/index.ts';
import { closeFd, createEventFd } from '../sys/index.ts';
import { type Check, failed, ok, skipped } from './check.ts';

/** The oldest Node that this program runs on; the `engines` of package.json. */
export const NODE_LEAST = '20.20.0';
/** Descriptors beside those of clients: lanes, XenStore, event channels, listeners, the log. */
const OTHER_DESCRIPTORS = 64;

/** Node is new enough. `version` is of the form `v20.20.2`. */
export function checkNode(version: string): Check {
  const numbers = (text: string): number[] => text.replace(/^v/, '').split('.').map(Number);
  const [major = 0, minor = 0] = numbers(version);
  const [leastMajor = 0, leastMinor = 0] = numbers(NODE_LEAST);
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) {
    return ok('node', `Node ${version}`);
  }
  return failed(
    'node',
    `Node ${version} is too old: ${NODE_LEAST} or newer is needed`,
    'install a newer Node, e.g. from https://nodejs.org, and put it first in PATH',
  );
}

/** The C library answers through koffi. That koffi loads at all shows in that this runs. */
export function checkKoffi(makeDescriptor: () => number = createEventFd): Check {
  try {
    closeFd(makeDescriptor());
    return ok('koffi', 'the C library answers (koffi)');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return failed(
      'koffi',
      `a call of the C library failed: ${reason}`,
      'npm rebuild koffi, in the folder of this program',
    );
  }
}

/** Xen has a block interface for this processor. `arch` as of process.arch. */
export function checkArchitecture(arch: string): Check {
  try {
    return ok('architecture', `the block interface of Xen is ${hostAbi(arch)} on ${arch}`);
  } catch (error) {
    const reason = error instanceof RangeError ? error.message : String(error);
    return failed('architecture', reason, 'use a guest on x64, arm64, arm or ia32');
  }
}

/** Each client is a descriptor, so as many as may connect must be allowed. */
export function checkOpenFiles(proc: string, connections: number): Check {
  const id = 'open-files';
  let text: string;
  try {
    text = readFileSync(join(proc, 'self/limits'), 'utf8');
  } catch {
    return skipped(id, 'the limit of open files cannot be seen');
  }
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(text)?.[1];
  if (limit === undefined) return skipped(id, 'the limit of open files cannot be seen');
  const needed = connections + OTHER_DESCRIPTORS;
  if (limit === 'unlimited' || Number(limit) >= needed) {
    return ok(id, `${limit} open files are allowed, ${connections} clients need ${needed}`);
  }
  return failed(
    id,
    `${limit} open files are allowed, and ${connections} clients need ${needed}`,
    `ulimit -n ${needed}, LimitNOFILE=${needed} in the unit, or a lower --max-connections`,
  );
}
