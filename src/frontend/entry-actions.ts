/** What each state of the life cycle begins with. The two final ones end in frontend.ts. */

import assert from 'node:assert/strict';
import { XenbusState } from '../blkif/index.ts';
import { refusedError } from './failures.ts';
import { completeConnection, offerConnection } from './handshake.ts';
import type { Life } from './life.ts';
import type { FrontendEvent, FrontendState } from './life-cycle.ts';
import type { Observation } from './observation.ts';
import { resizeAttachment } from './resize.ts';

/** First connections that may end in the back end closing again. */
const FIRST_ATTEMPTS = 3;

/** Does what `to` begins with, after `event` and with what was `seen`. */
export async function enterState(
  life: Life,
  to: Exclude<FrontendState, 'closed' | 'failed'>,
  event: FrontendEvent,
  seen: Observation,
): Promise<void> {
  switch (to) {
    case 'initialising':
      return await initialise(life, seen);
    case 'initialised':
      return await offer(life, seen);
    case 'connected':
      return event === 'resized' ? resize(life, seen) : await connect(life);
    case 'draining':
      return drain(life, event);
    case 'closing':
      if (event === 'attachStale' || event === 'returnedOpen') {
        await life.linkTo(seen);
      }
      await life.node.switchState(XenbusState.Closing);
      return;
    case 'finishing':
      if (event !== 'nudged') {
        life.deadlines.startRetryPause();
      }
      life.deadlines.startNudgePause();
      await life.node.switchState(XenbusState.Closed);
      life.log.debug(`${life.name}: says Closed.`);
      return;
    case 'absent':
      return await waitForReturn(life, event, seen);
    case 'idle':
      return;
    default:
      return to satisfies never;
  }
}

/** Begins a connection: nothing is left of the last one, and our state says so. */
async function initialise(life: Life, seen: Observation): Promise<void> {
  assert(life.held.isFinished, 'A connection was begun before the last one was finished.');
  await life.linkTo(seen);
  await life.refuseIfHeld();
  const attempts = life.deadlines.countAttempt();
  if (life.attachment === undefined && attempts > FIRST_ATTEMPTS) {
    life.fail(refusedError(life.name, seen, await life.readTold()));
    return;
  }
  // Before anything else that takes time: a back end that is made anew while we say Connected maps
  // the ring that our old keys name.
  await life.node.reset(XenbusState.Initialising);
  life.deadlines.startNudgePause();
  await life.held.release();
}

/** Tells the back end of new rings. */
async function offer(life: Life, seen: Observation): Promise<void> {
  const backend = life.link?.backend;
  if (backend !== undefined) {
    await life.refuseIfHeld();
    // Done already, unless initialise() failed on its way here.
    await life.held.release();
    await offerConnection(life, backend, seen.backendState);
  }
}

/** Both ends are ready: hands the rings out. */
async function connect(life: Life): Promise<void> {
  const backend = life.link?.backend;
  const { connection } = life.held;
  assert(backend !== undefined && connection !== undefined, 'Connected to nothing.');
  const completed = await completeConnection(life, connection, backend);
  if (completed === undefined || life.goal !== 'serve') {
    // Gone, or no longer wanted: the next look sees it.
    return;
  }
  const { sectors } = completed;
  const isFirst = life.attachment === undefined;
  const { areGrantsLost } = life.held.use();
  const attachment = {
    ...completed.attachment,
    areGrantsLost: !isFirst && (areGrantsLost || completed.attachment.areGrantsLost),
  };
  life.attachment = attachment;
  life.knownSectors = sectors;
  life.deadlines.endRecovery();
  life.log.info(`${life.name}: connected to ${backend.path}, ${attachment.disk.sectors} sectors.`);
  if (isFirst) {
    life.attached.resolve(attachment);
  } else {
    life.events.reattached?.(attachment);
  }
}

function resize(life: Life, seen: Observation): void {
  life.knownSectors = seen.sectors;
  const resized = life.attachment && resizeAttachment(life.attachment, seen.sectors, life.log);
  if (resized !== undefined) {
    life.attachment = resized;
    life.events.resized?.(resized.disk.sectors);
  }
}

function drain(life: Life, event: FrontendEvent): void {
  const isUnplug = event === 'unplugging';
  const generation = life.attachment?.generation;
  life.drainReason = isUnplug ? 'unplugging' : 'backend-closing';
  // A connection that was never handed out has no requests in flight.
  life.isDrained = !life.held.isInUse;
  if (life.isDrained) {
    return;
  }
  const finish = (): void => {
    // A slow answer to the last drain must not end the next one.
    if (generation === life.attachment?.generation) {
      life.isDrained = true;
      life.wakeUp.poke();
    }
  };
  Promise.resolve(life.events.backendClosing?.(isUnplug)).then(finish, finish);
}

async function waitForReturn(life: Life, event: FrontendEvent, seen: Observation): Promise<void> {
  const { frontendState } = seen;
  life.wereKeysSeen =
    event === 'backendGone' &&
    (frontendState === XenbusState.Initialised || frontendState === XenbusState.Connected);
  if (event === 'backendGone' && frontendState !== XenbusState.Unknown) {
    // At once, for the reason given in initialise().
    await life.node.reset(XenbusState.Initialising);
  } else if (event === 'unplugged') {
    await life.node.removeConnectionKeys();
  }
  await life.held.release();
  life.log.info(`${life.name}: waiting for the vbd and its back end to come back.`);
}
