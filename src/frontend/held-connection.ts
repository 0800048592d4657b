/**
 * The present connection and who still uses it. It is given back when both sides are done with it:
 * the back end, which the life cycle knows, and our own threads, which the owner knows.
 */

import assert from 'node:assert/strict';
import type { EventChannelHandle, XenHost } from '../host/index.ts';
import type { DetachReason } from './attachment.ts';
import type { Connection } from './connection.ts';
import type { FrontendEvents } from './options.ts';
import type { RestoreMark, RestoreProbe } from './restore-probe.ts';

export class HeldConnection {
  readonly #host: XenHost;
  readonly #events: FrontendEvents;
  readonly #probe: RestoreProbe;
  #connection: Connection | undefined;
  /** When it was made. */
  #madeAt: RestoreMark | undefined;
  /** How it is known that the back end is finished with it; undefined while it is not. */
  #finishedBecause: string | undefined;
  /** Whether this guest was restored since it was made: its event channels are dead. */
  #wasRestored = false;
  /** Whether this guest was restored since a connection was last in use: all grants are void. */
  #areGrantsLost = false;
  /** Whether the owner was told of it. */
  #isInUse = false;
  /** Resolves when the owner has let go of it. */
  #letGo: Promise<void> = Promise.resolve();

  constructor(host: XenHost, events: FrontendEvents, probe: RestoreProbe) {
    this.#host = host;
    this.#events = events;
    this.#probe = probe;
  }

  get connection(): Connection | undefined {
    return this.#connection;
  }

  get isInUse(): boolean {
    return this.#isInUse;
  }

  /** Whether there is none, or only one that the back end is finished with. */
  get isFinished(): boolean {
    return this.#connection === undefined || this.#finishedBecause !== undefined;
  }

  /** Takes a new connection, made at `madeAt`, which the back end was not told of yet. */
  hold(connection: Connection, madeAt: RestoreMark): void {
    assert(this.#connection === undefined, 'A connection was made while another was held.');
    this.#connection = connection;
    this.#madeAt = madeAt;
    this.#finishedBecause = undefined;
    this.#wasRestored = false;
  }

  /** The owner uses it from now on. Returns whether the grants of the last one are void. */
  use(): { readonly areGrantsLost: boolean } {
    const areGrantsLost = this.#areGrantsLost;
    this.#areGrantsLost = false;
    this.#isInUse = true;
    return { areGrantsLost };
  }

  /** Tells the owner to let go. */
  detach(reason: DetachReason): void {
    if (this.#isInUse) {
      this.#isInUse = false;
      this.#letGo = Promise.resolve(this.#events.detached?.(reason));
      // Awaited before the release; a failure is seen there.
      this.#letGo.catch(() => undefined);
    }
  }

  /** The caller of close() has let go already. */
  leave(): void {
    this.#isInUse = false;
  }

  /** The back end is finished with it. */
  finish(because: string): void {
    if (this.#connection !== undefined) {
      this.#finishedBecause ??= because;
    }
  }

  /** This guest was restored: the channels are dead and must never be closed. */
  restore(): void {
    this.#areGrantsLost = true;
    if (this.#connection === undefined || this.#wasRestored) return;
    this.#wasRestored = true;
    // At once: whatever comes, not even the end of the host may close them.
    for (const { eventChannel } of this.#connection.queues) {
      this.#host.disownEventChannel(eventChannel);
    }
  }

  /**
   * Gives it back once the owner has let go. Returns false, and keeps it, while the back end is not
   * finished.
   */
  async release(): Promise<boolean> {
    await this.#letGo;
    if (this.#connection === undefined) {
      return true;
    }
    if (this.#finishedBecause === undefined) {
      return false;
    }
    // The owner may have taken long: this is looked at once more, right before.
    if (this.#madeAt !== undefined && (await this.#probe.hasRestoredSince(this.#madeAt))) {
      this.restore();
    }
    const connection = this.#connection;
    this.#connection = undefined;
    if (this.#wasRestored) {
      const channels: EventChannelHandle[] = connection.releaseAfterRestore();
      this.#events.orphaned?.(channels);
    } else {
      connection.release();
    }
    return true;
  }
}
