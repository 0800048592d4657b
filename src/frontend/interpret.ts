/**
 * From what XenStore holds to the next event of the life cycle. Pure, and level-triggered: it looks
 * at the present, never at what changed, so that merged, late or missing watch events do no harm.
 */

import { XenbusState } from '../blkif/index.ts';
import type { FrontendEvent, FrontendState } from './life-cycle.ts';
import type { BackendLocation, Observation } from './observation.ts';

/** What the caller wants in the end. */
export type Goal =
  /** A connection. */
  | 'serve'
  /** The vbd at Closed, ready for the next front end. */
  | 'close'
  /** The same, and then an error to be reported. */
  | 'fail';

/** Which back end and which domain of ours the present connection, or attempt at one, is with. */
export interface Link {
  readonly backend: BackendLocation;
  /** Our domain id when the link began. */
  readonly domid: number | undefined;
}

/** All that the next step depends on. */
export interface Situation {
  readonly state: FrontendState;
  readonly observation: Observation;
  readonly link: Link | undefined;
  readonly goal: Goal;
  /** Whether there was a connection before: waits of a recovery are repeated, not fatal. */
  readonly wasConnected: boolean;
  /** Whether to wait for an unplugged vbd to come back. */
  readonly isReturnAwaited: boolean;
  /** The owner has the rings of the connection that stands. */
  readonly isHandedOut: boolean;
  /** No request is in flight any more. */
  readonly isDrained: boolean;
  /** A back end's directory that was made anew may have been so while our old keys stood. */
  readonly wereKeysSeen: boolean;
  /** The bounded wait of the present state is over. */
  readonly isTimeUp: boolean;
  /** The pause between two attempts at a connection is over. */
  readonly isRetryDue: boolean;
  /** Our Closed went unanswered long enough to be said again. */
  readonly isNudgeDue: boolean;
  /** There was no other attempt since the last connection, or since the start. */
  readonly isFirstAttempt: boolean;
  /** `sectors` as last taken over. */
  readonly knownSectors: string | undefined;
}

/** The next event, or undefined to wait. */
export function interpret(situation: Situation): FrontendEvent | undefined {
  if (isRestored(situation)) {
    return 'restored';
  }
  switch (situation.state) {
    case 'idle':
      return interpretIdle(situation);
    case 'initialising':
      return interpretInitialising(situation);
    case 'initialised':
      return interpretInitialised(situation);
    case 'connected':
    case 'draining':
      return interpretConnected(situation);
    case 'closing':
      return interpretClosing(situation);
    case 'finishing':
      return interpretFinishing(situation);
    case 'absent':
      return interpretAbsent(situation);
    case 'closed':
    case 'failed':
      return undefined;
    default:
      return situation.state satisfies never;
  }
}

/**
 * Another domain id means that this guest was saved and restored, or has migrated. A checkpoint
 * leaves the id and everything else as it was, and so does not get here.
 */
function isRestored({ observation, link, state }: Situation): boolean {
  return (
    state !== 'closed' &&
    state !== 'failed' &&
    link?.domid !== undefined &&
    observation.domid !== undefined &&
    observation.domid !== link.domid
  );
}

function interpretIdle({ observation }: Situation): FrontendEvent {
  const { frontendState, backendState } = observation;
  if (frontendState === XenbusState.Unknown || backendState === XenbusState.Unknown) {
    return 'attachAbsent';
  }
  const isRested =
    frontendState === XenbusState.Initialising || frontendState === XenbusState.Closed;
  return isRested && !isEngaged(backendState) ? 'attachFresh' : 'attachStale';
}

function interpretInitialising(situation: Situation): FrontendEvent | undefined {
  const { observation, link, goal } = situation;
  const lost = interpretLoss(situation);
  if (lost !== undefined) {
    return lost;
  }
  if (goal !== 'serve') {
    return goal === 'close' ? 'closeRequested' : 'givenUp';
  }
  if (observation.backend?.path !== link?.backend.path) {
    return 'backendMoved';
  }
  const { backendState } = observation;
  if (backendState === XenbusState.InitWait || backendState === XenbusState.Initialised) {
    return 'backendReady';
  }
  if (backendState === XenbusState.Closing) {
    return 'backendClosing';
  }
  if (isEngaged(backendState)) {
    return 'backendStale';
  }
  // Closed may have been written over a back end that still has the ring of a process that died. A
  // first connection asks for that once only, since its wait is bounded.
  const mayAsk = situation.wasConnected || situation.isFirstAttempt;
  if (backendState === XenbusState.Closed && mayAsk && situation.isNudgeDue) {
    return 'unanswered';
  }
  // Initialising: it is being set up. Closed: it did not see our Initialising yet.
  return outOfTime(situation);
}

function interpretInitialised(situation: Situation): FrontendEvent | undefined {
  const { observation, goal, isTimeUp } = situation;
  const lost = interpretLoss(situation);
  if (lost !== undefined) {
    return lost;
  }
  if (goal !== 'serve') {
    return goal === 'close' ? 'closeRequested' : 'givenUp';
  }
  // When the keys could not be written our state is still Initialising, by our own hand.
  const reset = isTimeUp ? undefined : interpretReset(observation);
  if (reset !== undefined) {
    return reset;
  }
  const { linkedState } = observation;
  if (linkedState === XenbusState.Connected) {
    return 'backendConnected';
  }
  const isRefused = linkedState === XenbusState.Closing || linkedState === XenbusState.Closed;
  return isRefused ? 'backendRefused' : outOfTime(situation);
}

function interpretConnected(situation: Situation): FrontendEvent | undefined {
  const { state, observation, goal, isDrained, isTimeUp } = situation;
  const lost = interpretLoss(situation) ?? interpretReset(observation);
  if (lost !== undefined) {
    return lost;
  }
  const { linkedState } = observation;
  if (linkedState === XenbusState.Initialising) {
    return 'backendReset';
  }
  if (linkedState === XenbusState.InitWait || linkedState === XenbusState.Initialised) {
    return 'backendRestarted';
  }
  if (linkedState === XenbusState.Closed) {
    return 'backendClosed';
  }
  if (goal !== 'serve') {
    return goal === 'close' ? 'closeRequested' : 'givenUp';
  }
  if (state === 'draining') {
    if (isDrained) {
      return 'drained';
    }
    return isTimeUp ? 'timedOut' : undefined;
  }
  if (!observation.isOnline) {
    // Also under Connected: the toolstack's Closing may have been overwritten by a back end that
    // was about to connect, and the toolstack waits.
    return 'unplugging';
  }
  if (linkedState === XenbusState.Closing) {
    return 'backendClosing';
  }
  if (!situation.isHandedOut) {
    // It had left Connected when its disk was to be read, and is back there; or that failed.
    return situation.isRetryDue ? 'backendConnected' : undefined;
  }
  return observation.sectors === situation.knownSectors ? undefined : 'resized';
}

function interpretClosing(situation: Situation): FrontendEvent | undefined {
  const { observation, goal, isTimeUp } = situation;
  if (observation.linkedState === XenbusState.Unknown && goal !== 'serve') {
    return goal === 'close' ? 'finishedForGood' : 'finishedInVain';
  }
  const lost = interpretLoss(situation);
  if (lost !== undefined) {
    return lost;
  }
  if (observation.linkedState !== XenbusState.Connected) {
    return 'backendAnswered';
  }
  return isTimeUp ? 'timedOut' : undefined;
}

function interpretFinishing(situation: Situation): FrontendEvent | undefined {
  const { observation, goal, wasConnected, isReturnAwaited } = situation;
  const { linkedState } = observation;
  if (goal !== 'serve') {
    if (linkedState === XenbusState.Closed || linkedState === XenbusState.Unknown) {
      return goal === 'close' ? 'finishedForGood' : 'finishedInVain';
    }
    if (!situation.isTimeUp) {
      return situation.isNudgeDue ? 'nudged' : undefined;
    }
    return goal === 'close' ? 'abandoned' : 'timedOut';
  }
  const lost = interpretLoss(situation);
  if (lost !== undefined) {
    return lost;
  }
  if (linkedState === XenbusState.Closed) {
    if (!observation.isOnline) {
      return wasConnected && !isReturnAwaited ? 'unpluggedForGood' : 'unplugged';
    }
    return situation.isRetryDue ? 'finished' : undefined;
  }
  if (situation.isTimeUp && !wasConnected) {
    return 'timedOut';
  }
  return situation.isNudgeDue ? 'nudged' : undefined;
}

function interpretAbsent(situation: Situation): FrontendEvent | undefined {
  const { observation, link, goal, isReturnAwaited, wasConnected } = situation;
  const isLinkGone =
    observation.linkedState === XenbusState.Unknown ||
    observation.linkedState === XenbusState.Closed;
  if (goal === 'close') {
    if (isLinkGone) {
      return 'finishedForGood';
    }
    return situation.isTimeUp ? 'abandoned' : undefined;
  }
  if (goal === 'fail') {
    return 'givenUp';
  }
  const { frontendState, backendState, isOnline } = observation;
  if (frontendState === XenbusState.Unknown || backendState === XenbusState.Unknown) {
    const isVbdGone = frontendState === XenbusState.Unknown && isLinkGone;
    if (isVbdGone && wasConnected && !isReturnAwaited) {
      return 'unpluggedForGood';
    }
    return situation.isTimeUp && !wasConnected ? 'timedOut' : undefined;
  }
  if (isEngaged(observation.linkedState) && observation.backend?.path !== link?.backend.path) {
    // Our keys name a new back end, but the old one still holds the ring.
    return undefined;
  }
  if (isEngaged(backendState)) {
    return 'returnedOpen';
  }
  // After an unplug both directories stand at Closed until the toolstack removes them. They are
  // back when somebody set our state to Initialising, or the back end waits or is kept.
  const isBack =
    frontendState === XenbusState.Initialising || backendState !== XenbusState.Closed || isOnline;
  if (!isBack) {
    return undefined;
  }
  // A back end that saw our old keys may be about to map the old ring, and to say Connected.
  return situation.wereKeysSeen ? 'returnedOpen' : 'returned';
}

/** A directory that is gone, while a connection stands or is being made. */
function interpretLoss(situation: Situation): FrontendEvent | undefined {
  const { frontendState, linkedState } = situation.observation;
  if (linkedState === XenbusState.Unknown) {
    const isVbdGone = frontendState === XenbusState.Unknown;
    return isVbdGone && situation.wasConnected && !situation.isReturnAwaited
      ? 'unpluggedForGood'
      : 'backendGone';
  }
  return frontendState === XenbusState.Unknown ? 'vbdGone' : undefined;
}

/** Our own state set to Initialising by somebody else. */
function interpretReset(observation: Observation): FrontendEvent | undefined {
  if (observation.frontendState !== XenbusState.Initialising) {
    return undefined;
  }
  return isEngaged(observation.linkedState) ? 'vbdResetOpen' : 'vbdReset';
}

/** Whether a back end in this state may hold a ring. */
function isEngaged(backendState: XenbusState): boolean {
  return (
    backendState === XenbusState.Connected ||
    backendState === XenbusState.Closing ||
    backendState === XenbusState.Reconfiguring ||
    backendState === XenbusState.Reconfigured
  );
}

function outOfTime({ isTimeUp, wasConnected, isRetryDue }: Situation): FrontendEvent | undefined {
  if (!isTimeUp) {
    return undefined;
  }
  if (!wasConnected) {
    return 'timedOut';
  }
  return isRetryDue ? 'retried' : undefined;
}
