/** A guest with one vbd: a scripted store and back end, a fake host, a virtual clock, an owner. */

import { XenStoreClient } from 'xenstore-client';
import {
  type Attachment,
  type DetachReason,
  describeVbd,
  Frontend,
  type FrontendEnd,
  type FrontendEvents,
  type FrontendOptions,
} from '../../../src/frontend/index.ts';
import { FakeHost } from './fake-host.ts';
import { ScriptedBackend, type ScriptedBackendOptions } from './scripted-backend.ts';
import { ScriptedStore } from './scripted-store.ts';
import { VirtualClock } from './virtual-clock.ts';

/** Records what the front end tells, and lets go when the test says. */
export class Owner implements FrontendEvents {
  readonly told: string[] = [];
  readonly attachments: Attachment[] = [];
  readonly orphans: number[] = [];
  end: FrontendEnd | undefined;
  /** Whether drains and detachments are answered at once. */
  isPrompt = true;
  /** Whether the owner may still touch the ring. */
  isUsingRing = false;
  readonly #waiting: (() => void)[] = [];

  /** Answers what waits. */
  letGo(): void {
    for (const resolve of this.#waiting.splice(0)) {
      resolve();
    }
  }

  backendClosing(isUnplug: boolean): Promise<void> {
    this.told.push(isUnplug ? 'closing for removal' : 'closing');
    return this.#wait(() => undefined);
  }

  detached(reason: DetachReason): Promise<void> {
    this.told.push(`detached: ${reason}`);
    return this.#wait(() => {
      this.isUsingRing = false;
    });
  }

  reattached(attachment: Attachment): void {
    this.told.push('reattached');
    this.isUsingRing = true;
    this.attachments.push(attachment);
  }

  resized(sectors: number): void {
    this.told.push(`resized: ${sectors}`);
  }

  orphaned(channels: readonly { port: number }[]): void {
    this.told.push('orphaned');
    this.orphans.push(...channels.map(({ port }) => port));
  }

  ended(end: FrontendEnd): void {
    this.told.push(`ended: ${end.reason}`);
    this.end = end;
  }

  #wait(done: () => void): Promise<void> {
    if (this.isPrompt) {
      done();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#waiting.push(() => {
        done();
        resolve();
      });
    });
  }
}

export class World {
  readonly store: ScriptedStore = new ScriptedStore();
  readonly clock: VirtualClock = new VirtualClock();
  readonly host: FakeHost = new FakeHost(this.store);
  readonly owner: Owner = new Owner();
  readonly lines: string[] = [];
  readonly back: ScriptedBackend;
  readonly client: XenStoreClient;
  /** What was wrong, checked at each release. */
  readonly faults: string[] = [];

  constructor(options: ScriptedBackendOptions = {}) {
    this.store.set('domid', '1');
    this.back = new ScriptedBackend(this.store, options);
    this.client = new XenStoreClient(this.store.connect());
    this.host.onRelease = () => {
      // What the whole design is about: never under the feet of somebody who uses it.
      if (this.owner.isUsingRing) {
        this.faults.push('released while the owner used it');
      }
      if (this.back.hasRing) {
        this.faults.push('released while the back end held it');
      }
    };
  }

  async frontend(changes: Partial<FrontendOptions> = {}): Promise<Frontend> {
    const vbd = await describeVbd(this.client, 51728);
    const log = (level: string) => (message: string) => {
      this.lines.push(`${level} ${message}`);
    };
    return new Frontend({
      host: this.host,
      store: this.client,
      vbd,
      want: { queues: 1, ringPageOrder: 0, maxIndirectSegments: 0, isPersistent: false },
      abi: 'x86_64-abi',
      viewMemory: this.host.viewMemory,
      events: this.owner,
      clock: this.clock,
      log: { debug: log('debug'), info: log('info'), warn: log('warn') },
      ...changes,
    });
  }

  /** A front end that is connected. */
  async attached(
    changes: Partial<FrontendOptions> = {},
  ): Promise<{ frontend: Frontend; attachment: Attachment }> {
    const frontend = await this.frontend(changes);
    const attachment = await frontend.attach();
    this.owner.isUsingRing = true;
    await this.clock.settle();
    return { frontend, attachment };
  }

  /** States of both ends, as `4/4`. */
  get states(): string {
    return `${this.back.frontendState ?? '-'}/${this.back.state ?? '-'}`;
  }

  /** Our states as they were written, in order. */
  get statesWritten(): string {
    return this.store.writes
      .filter(([path]) => path === `${this.back.frontendPath}/state`)
      .map(([, value]) => value)
      .join(' ');
  }
}
