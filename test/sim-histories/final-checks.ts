/** What must hold when a history is over. Each check returns what is wrong, or undefined. */

import { NO_PAGE, type PagePool } from '../../src/dataplane/page-pool.ts';
import type { FrontendEnd } from '../../src/frontend/index.ts';
import type { SeededRandom } from '../support/random.ts';
import type { DiskModel } from './disk-model.ts';
import type { Environment } from './environment.ts';
import { constantBytes } from './payloads.ts';
import type { ServedProcess } from './served-process.ts';

/** Keys that a connection leaves in the front end's directory, and that must be gone. */
const CONNECTION_KEY = /^(?:ring-ref|event-channel|ring-page-order|multi-queue-num-queues|queue-)/;

/** Nothing is in progress, and everything that was used is back where it came from. */
export function checkAtRest(process: ServedProcess): string | undefined {
  for (const lane of process.lanes) {
    const { engine, ring, pool, zeroPool, indirectPool } = lane;
    const name = `lane ${lane.index}`;
    if (!engine.isIdle) return `${name} is not idle after its drain`;
    // What was on the ring of a broken back end is never used again.
    if (lane.isBroken) continue;
    if (ring.fault !== undefined) return `${name}: ${ring.fault}`;
    if (ring.inFlight !== 0) return `${name} has ${ring.inFlight} requests on the ring`;
    if (ring.replaying !== 0) return `${name} has ${ring.replaying} requests to be replayed`;
    for (const [kind, pages] of Object.entries({ pool, indirectPool })) {
      if (pages !== undefined && pages.freeCount !== pages.pageCount) {
        return `${name}: ${pages.freeCount} of ${pages.pageCount} pages of the ${kind} are free`;
      }
    }
    if (hasTwice(pool)) return `${name} has a page twice among its free ones`;
    const { buffer, byteOffset, byteLength } = zeroPool.view;
    const zeroes = Buffer.from(buffer, byteOffset, byteLength);
    if (!zeroes.equals(constantBytes(0, byteLength))) return `${name}: a zero page is not zero`;
  }
  return undefined;
}

/** Takes every free page, and so ends the use of the pool. */
function hasTwice(pool: PagePool): boolean {
  const taken = new Set<number>();
  for (let page = pool.take(); page !== NO_PAGE; page = pool.take()) {
    if (taken.has(page)) return true;
    taken.add(page);
  }
  return false;
}

/** The vbd is closed: nothing granted, nothing bound, XenStore as it was. */
export async function checkClosed(
  environment: Environment,
  end: FrontendEnd | undefined,
  isUnplugged: boolean,
): Promise<string | undefined> {
  const { guest, grants, store, frontendPath, backendPath, xenstored } = environment;
  if (end?.isBackendFinished !== true) return 'the back end did not finish';
  if (!isUnplugged && end.reason !== 'closed') return `it ended as ${end.reason}`;
  if (guest.heldPages !== 0) return `${guest.heldPages} pages are still granted`;
  if (guest.channelCount.held !== 0) return `${guest.channelCount.held} ports are still open`;
  const { grantedPages, deferredPages, mappings } = grants.use();
  if (grantedPages + deferredPages + mappings !== 0) {
    return `grants: ${grantedPages} held, ${deferredPages} deferred, ${mappings} mapped`;
  }
  if (xenstored.connectionCount !== environment.ownConnections) {
    return `${xenstored.connectionCount - environment.ownConnections} connections to XenStore are open`;
  }
  const frontend = await store.tryRead(`${frontendPath}/state`);
  const backend = await store.tryRead(`${backendPath}/state`);
  if (frontend === undefined) return undefined;
  // It was attached anew after we had left for good.
  if (isUnplugged && `${frontend}/${backend}` === '1/2') return undefined;
  const left = (await store.directory(frontendPath)).filter((name) => CONNECTION_KEY.test(name));
  if (left.length > 0) return `keys were left behind: ${left.join(', ')}`;
  const states = `${frontend}/${backend ?? 'gone'}`;
  return states === '6/6' || states === '6/gone' ? undefined : `the states are ${states}`;
}

/** The disk holds what the model allows, also after a last loss of its cache. */
export function checkDisk(
  environment: Environment,
  model: DiskModel,
  random: SeededRandom,
): string | undefined {
  const { disk } = environment;
  const look = (when: string): string | undefined => {
    const read = model.beginRead();
    const wrong = model.checkRead(0, disk.current, read.beganAt, model.now());
    model.endRead(read);
    return wrong && `the disk ${when}: ${wrong}`;
  };
  const wrong = look('at the end');
  if (wrong !== undefined) return wrong;
  model.crash();
  disk.crash(random);
  return look('after a last crash');
}
