/**
 * What one front end knows and holds, shared by the loop (frontend.ts) and the actions that states
 * begin with (entry-actions.ts). Not exported from this folder.
 */

import type { Attachment, DetachReason } from './attachment.ts';
import { readBackendError } from './backend-keys.ts';
import { systemClock } from './clock.ts';
import { Deadlines } from './deadlines.ts';
import { Deferred } from './deferred.ts';
import type { FrontendError } from './errors.ts';
import { heldError } from './failures.ts';
import { HeldConnection } from './held-connection.ts';
import type { Goal, Link } from './interpret.ts';
import type { FrontendState } from './life-cycle.ts';
import { type FrontendLog, silentLog } from './log.ts';
import type { Observation } from './observation.ts';
import type { FrontendEvents, FrontendOptions } from './options.ts';
import { RestoreProbe } from './restore-probe.ts';
import { DEFAULT_TIMEOUTS, type FrontendTimeouts } from './timeouts.ts';
import { VbdNode } from './vbd-node.ts';
import { VbdWatches } from './vbd-watches.ts';
import { WakeUp } from './wake-up.ts';

export class Life {
  readonly options: FrontendOptions;
  /** The vbd's name, for messages. */
  readonly name: string;
  readonly events: FrontendEvents;
  readonly log: FrontendLog;
  readonly timeouts: FrontendTimeouts;
  readonly node: VbdNode;
  readonly wakeUp: WakeUp;
  readonly watches: VbdWatches;
  readonly probe: RestoreProbe;
  readonly held: HeldConnection;
  readonly deadlines: Deadlines;
  /** The first connection. */
  readonly attached: Deferred<Attachment> = new Deferred();

  state: FrontendState = 'idle';
  goal: Goal = 'serve';
  /** Why the goal is to fail. */
  failure: FrontendError | undefined;
  /** With whom the present connection, or the attempt at one, is. */
  link: Link | undefined;
  /** The last connection that stood. */
  attachment: Attachment | undefined;
  /** `sectors` as last taken over. */
  knownSectors: string | undefined;
  isDrained = false;
  wereKeysSeen = false;
  /** Why the last drain began. */
  drainReason: DetachReason = 'backend-closing';

  constructor(options: FrontendOptions) {
    const clock = options.clock ?? systemClock;
    this.options = options;
    this.name = options.vbd.name;
    this.events = options.events ?? {};
    this.log = options.log ?? silentLog;
    this.timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
    this.node = new VbdNode(options.store, options.vbd.path);
    this.wakeUp = new WakeUp(clock);
    this.watches = new VbdWatches(options.store, () => this.wakeUp.poke());
    this.probe = new RestoreProbe(options.store);
    this.held = new HeldConnection(options.host, this.events, this.probe);
    this.deadlines = new Deadlines(clock, this.timeouts);
    // Who waits for the attach sees its failure; when nobody does it is not an error of its own.
    this.attached.promise.catch(() => undefined);
  }

  /** Changes what is wanted. The wait of the present state begins anew. */
  pursue(goal: Goal): void {
    this.goal = goal;
    this.deadlines.startWait(this.state, goal);
    this.wakeUp.poke();
  }

  /** Makes a failure the goal; the life cycle takes the vbd to Closed and then reports it. */
  fail(error: FrontendError): void {
    if (this.goal === 'serve') {
      this.failure = error;
      this.pursue('fail');
    }
  }

  /** From here on the connection, or the attempt at one, is with the back end that is seen. */
  async linkTo({ backend, domid }: Observation): Promise<void> {
    this.link = backend && { backend, domid };
    if (backend !== undefined) {
      await this.watches.follow(backend.path);
    }
  }

  /** @throws FrontendError HELD when somebody else drives the vbd. */
  async refuseIfHeld(): Promise<void> {
    const holder = await this.options.holderOf?.(this.options.vbd.id);
    if (holder !== undefined) {
      throw heldError(this.name, holder);
    }
  }

  /** The error that the back end left for us, if it did and we may read it. */
  async readTold(): Promise<string | undefined> {
    const path = this.link?.backend.path;
    return path === undefined ? undefined : await readBackendError(this.options.store, path);
  }
}
