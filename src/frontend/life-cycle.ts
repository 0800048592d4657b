/**
 * The life of a vbd's front end as a table: which event leads from which state to which, and, for
 * each step after which a new connection may be made, how it is known that the old one is
 * finished.
 *
 * That knowledge is the heart of it. Requests in flight are replayed on the next connection, and
 * the pages of the old ring are used again. Were the old back end still executing, one of its late
 * writes could land on top of a newer, acknowledged one. So `initialising`, the only way to a new
 * connection, is entered by rows that either name the proof (`finishedBecause`) or start from a
 * state in which there is no connection.
 *
 * This is data and a look-up; interpret.ts turns what XenStore holds into events, frontend.ts acts.
 */

/** Where a front end stands in its life. */
export type FrontendState =
  /** Nothing was touched yet. */
  | 'idle'
  /** Our state is Initialising and our keys are gone; the back end is to reach InitWait. */
  | 'initialising'
  /** Our keys are written, our state is Initialised; the back end is to reach Connected. */
  | 'initialised'
  /** Both ends are Connected. */
  | 'connected'
  /** The back end wants to close; requests in flight come to their end. */
  | 'draining'
  /** Our state is Closing; the back end is to follow. */
  | 'closing'
  /** Our state is Closed; the back end is to reach Closed. */
  | 'finishing'
  /** One of the two directories is gone; both are to come back. */
  | 'absent'
  /** The end: closed as asked for, or unplugged. */
  | 'closed'
  /** The end: given up, with an error. */
  | 'failed';

/** What leads from one state to the next. */
export type FrontendEvent =
  /** Begin, with both ends at rest. */
  | 'attachFresh'
  /** Begin, with states that an earlier front end left behind. */
  | 'attachStale'
  /** Begin, while a directory is missing. */
  | 'attachAbsent'
  /** The back end is at InitWait. */
  | 'backendReady'
  /** The back end is Connected, and so are we to be. */
  | 'backendConnected'
  /** The back end is Connected to somebody before us. */
  | 'backendStale'
  /** The back end went to Closing, and its device stays. */
  | 'backendClosing'
  /** The back end's device is to be removed. */
  | 'unplugging'
  /** The back end is Closed under our Connected. */
  | 'backendClosed'
  /** The back end is at InitWait under our Connected: its driver was bound anew. */
  | 'backendRestarted'
  /** The back end is at Initialising under our Connected: its directory was made anew. */
  | 'backendReset'
  /** The back end closed instead of connecting. */
  | 'backendRefused'
  /** The back end left the states of a connection, or took long enough. */
  | 'backendAnswered'
  /** The back end's directory is gone. */
  | 'backendGone'
  /** The key `backend` names another directory. */
  | 'backendMoved'
  /** Our directory is gone, the back end's is there. */
  | 'vbdGone'
  /** Our state was set to Initialising by somebody else, with a back end that is at rest. */
  | 'vbdReset'
  /** The same, with a back end that is still connected. */
  | 'vbdResetOpen'
  /** Both directories are there again. */
  | 'returned'
  /** The same, with a back end that is connected, or may be connecting by our old keys. */
  | 'returnedOpen'
  /** Our domain id changed: the guest was restored or migrated. */
  | 'restored'
  /** The size changed. */
  | 'resized'
  /** No request is in flight any more, or the wait for that is over. */
  | 'drained'
  /** The old connection is finished, and a new one is wanted. */
  | 'finished'
  /** The old connection is finished, as the caller asked. */
  | 'finishedForGood'
  /** The old connection is finished, and an error waits to be reported. */
  | 'finishedInVain'
  /** The old connection is finished, since the vbd is to be removed, and may come back. */
  | 'unplugged'
  /** The vbd is gone, and the caller does not want to wait for it. */
  | 'unpluggedForGood'
  /** The caller wants to close. */
  | 'closeRequested'
  /** An error waits to be reported. */
  | 'givenUp'
  /** A bounded wait is over. */
  | 'timedOut'
  /** A wait of the recovery is over: try again. */
  | 'retried'
  /** The back end stays at Closed under our Initialising: it may never have seen our Closed. */
  | 'unanswered'
  /** Closed is said again, to a back end that looks only when we write. */
  | 'nudged'
  /** The end, with a back end that did not confirm. */
  | 'abandoned';

/** One step. */
export interface LifeCycleRow {
  readonly to: FrontendState;
  /** How it is known that the old connection is finished, for the steps after which it is. */
  readonly finishedBecause?: string;
}

const DIRECTORY_GONE =
  "the back end's directory is gone, and with it the device that held the ring";
const BACKEND_CLOSED = 'the back end is Closed: it unmapped the ring after its last request';
const MADE_ANEW =
  'the directories were made anew, which the toolstack does after removing the old device';
const OLD_DOMAIN_GONE = 'the domain that the old back end served does not exist any more';

/** Steps of a vbd that vanishes or returns, the same in every state that has a connection. */
const LOST: Partial<Record<FrontendEvent, LifeCycleRow>> = {
  backendGone: { to: 'absent', finishedBecause: DIRECTORY_GONE },
  vbdGone: { to: 'absent' },
  unpluggedForGood: { to: 'closed', finishedBecause: DIRECTORY_GONE },
  restored: { to: 'initialising', finishedBecause: OLD_DOMAIN_GONE },
};

/** Steps of trouble under a connection. */
const TROUBLE: Partial<Record<FrontendEvent, LifeCycleRow>> = {
  ...LOST,
  backendClosed: { to: 'finishing', finishedBecause: BACKEND_CLOSED },
  backendRestarted: { to: 'finishing' },
  backendReset: { to: 'finishing' },
  vbdReset: { to: 'initialising', finishedBecause: MADE_ANEW },
  vbdResetOpen: { to: 'closing' },
  closeRequested: { to: 'closing' },
  givenUp: { to: 'closing' },
};

/** The table. An event without a row in the present state is a fault of this program. */
export const LIFE_CYCLE: Readonly<
  Record<FrontendState, Readonly<Partial<Record<FrontendEvent, LifeCycleRow>>>>
> = {
  idle: {
    attachFresh: { to: 'initialising' },
    attachStale: { to: 'closing' },
    attachAbsent: { to: 'absent' },
  },
  initialising: {
    backendReady: { to: 'initialised' },
    backendStale: { to: 'closing' },
    backendClosing: { to: 'finishing' },
    unanswered: { to: 'finishing' },
    backendGone: { to: 'absent' },
    backendMoved: { to: 'initialising' },
    vbdGone: { to: 'absent' },
    unpluggedForGood: { to: 'closed' },
    restored: { to: 'initialising' },
    closeRequested: { to: 'finishing' },
    givenUp: { to: 'failed' },
    timedOut: { to: 'failed' },
    retried: { to: 'initialising' },
  },
  initialised: {
    ...LOST,
    backendConnected: { to: 'connected' },
    backendRefused: { to: 'finishing' },
    vbdReset: { to: 'initialising', finishedBecause: MADE_ANEW },
    vbdResetOpen: { to: 'closing' },
    closeRequested: { to: 'closing' },
    givenUp: { to: 'closing' },
    timedOut: { to: 'finishing' },
    retried: { to: 'finishing' },
  },
  connected: {
    ...TROUBLE,
    backendClosing: { to: 'draining' },
    unplugging: { to: 'draining' },
    resized: { to: 'connected' },
    backendConnected: { to: 'connected' },
  },
  draining: {
    ...TROUBLE,
    drained: { to: 'closing' },
    timedOut: { to: 'closing' },
  },
  closing: {
    ...LOST,
    backendAnswered: { to: 'finishing' },
    timedOut: { to: 'finishing' },
    finishedForGood: { to: 'closed', finishedBecause: DIRECTORY_GONE },
    finishedInVain: { to: 'failed', finishedBecause: DIRECTORY_GONE },
  },
  finishing: {
    ...LOST,
    finished: { to: 'initialising', finishedBecause: BACKEND_CLOSED },
    unplugged: { to: 'absent', finishedBecause: BACKEND_CLOSED },
    unpluggedForGood: { to: 'closed', finishedBecause: BACKEND_CLOSED },
    finishedForGood: { to: 'closed', finishedBecause: BACKEND_CLOSED },
    finishedInVain: { to: 'failed', finishedBecause: BACKEND_CLOSED },
    nudged: { to: 'finishing' },
    abandoned: { to: 'closed' },
    timedOut: { to: 'failed' },
  },
  absent: {
    returned: { to: 'initialising', finishedBecause: MADE_ANEW },
    returnedOpen: { to: 'closing' },
    restored: { to: 'initialising', finishedBecause: OLD_DOMAIN_GONE },
    finishedForGood: { to: 'closed', finishedBecause: DIRECTORY_GONE },
    abandoned: { to: 'closed' },
    unpluggedForGood: { to: 'closed', finishedBecause: DIRECTORY_GONE },
    givenUp: { to: 'failed' },
    timedOut: { to: 'failed' },
  },
  closed: {},
  failed: {},
};

/**
 * The step that `event` makes from `state`.
 *
 * @throws Error for an event that cannot happen there: a fault of this program.
 */
export function transition(state: FrontendState, event: FrontendEvent): LifeCycleRow {
  const row = LIFE_CYCLE[state][event];
  if (row === undefined) {
    throw new Error(`The front end has no step for ${event} in the state ${state}.`);
  }
  return row;
}

/** Whether the life is over. */
export function isFinal(state: FrontendState): state is 'closed' | 'failed' {
  return state === 'closed' || state === 'failed';
}
