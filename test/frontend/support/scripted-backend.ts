/**
 * A back end for tests of the front end, after the state machine of Linux's xen-blkback: it reacts
 * to the front end's state a microtask later, and can be told to misbehave.
 */

import type { ScriptedStore } from './scripted-store.ts';

export interface ScriptedBackendOptions {
  readonly id?: number;
  readonly backendId?: number;
  /** What stands there from InitWait on. */
  readonly limits?: Record<string, string>;
  /** What stands there from Connected on. */
  readonly disk?: Record<string, string>;
}

export const DEFAULT_DISK: Record<string, string> = {
  sectors: '131072',
  info: '0',
  'sector-size': '512',
  'physical-sector-size': '4096',
  'feature-flush-cache': '1',
  'feature-persistent': '1',
  'feature-discard': '1',
  'discard-granularity': '4096',
  'discard-alignment': '0',
};

export class ScriptedBackend {
  readonly store: ScriptedStore;
  readonly backendPath: string;
  readonly frontendPath: string;
  readonly backendId: number;
  disk: Record<string, string>;
  limits: Record<string, string>;
  /** Does not react while it is deaf. */
  isDeaf = false;
  /** Goes to Closing instead of connecting, this many times. */
  refusals = 0;
  /** The front end's keys when it connected, one entry for each connection. */
  readonly connections: Record<string, string>[] = [];
  /** Whether it holds a ring: from connecting to Closed, or until its directory goes. */
  hasRing = false;
  #stop: () => void;
  #isScheduled = false;

  constructor(store: ScriptedStore, options: ScriptedBackendOptions = {}) {
    const { id = 51728, backendId = 0 } = options;
    this.store = store;
    this.backendId = backendId;
    this.backendPath = `/local/domain/${backendId}/backend/vbd/1/${id}`;
    this.frontendPath = `${store.home}/device/vbd/${id}`;
    this.limits = options.limits ?? {};
    this.disk = options.disk ?? DEFAULT_DISK;
    this.#stop = store.onChange((path) => {
      if (path === `${this.frontendPath}/state`) {
        this.#schedule();
      }
    });
  }

  get state(): string | undefined {
    return this.store.get(`${this.backendPath}/state`);
  }

  get frontendState(): string | undefined {
    return this.store.get(`${this.frontendPath}/state`);
  }

  /** What the toolstack does: both directories at state 1. The driver goes on to InitWait. */
  plug(frontendKeys: Record<string, string> = {}): void {
    const { store, backendPath, frontendPath } = this;
    const values: Record<string, string> = {
      [`${backendPath}/frontend`]: frontendPath,
      [`${backendPath}/frontend-id`]: '1',
      [`${backendPath}/online`]: '1',
      [`${backendPath}/mode`]: 'w',
      [`${backendPath}/params`]: '/images/disk.img',
      [`${backendPath}/state`]: '1',
      [`${frontendPath}/backend`]: backendPath,
      [`${frontendPath}/backend-id`]: String(this.backendId),
      [`${frontendPath}/virtual-device`]: '51728',
      [`${frontendPath}/device-type`]: 'disk',
      [`${frontendPath}/state`]: '1',
    };
    for (const [key, value] of Object.entries(frontendKeys)) {
      values[`${frontendPath}/${key}`] = value;
    }
    store.setAll(values);
    this.probe();
  }

  /** The driver is bound to the device: InitWait, whatever the front end says. */
  probe(): void {
    if (!this.isDeaf) {
      this.hasRing = false;
      this.#publish({ ...this.limits, state: '2' });
      this.#schedule();
    }
  }

  /** The toolstack asks for the removal. */
  detach(): void {
    this.#publish({ online: '0', state: '5' });
  }

  /** Both directories go at once. */
  unplug(): void {
    this.hasRing = false;
    this.store.remove(this.backendPath, this.frontendPath);
  }

  /** The back end's domain dies: only its directory goes. */
  unplugBackendOnly(): void {
    this.hasRing = false;
    this.store.remove(this.backendPath);
  }

  setState(state: number): void {
    this.#publish({ state: String(state) });
  }

  /** The disk changes its size, as xen_vbd_resize tells it. */
  resize(sectors: string): void {
    this.#publish({ sectors, state: '4' });
  }

  stop(): void {
    this.#stop();
  }

  #publish(keys: Record<string, string>): void {
    this.store.setAll(
      Object.fromEntries(
        Object.entries(keys).map(([key, value]) => [`${this.backendPath}/${key}`, value]),
      ),
    );
  }

  #schedule(): void {
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      queueMicrotask(() => {
        this.#isScheduled = false;
        this.#react();
      });
    }
  }

  /** frontend_changed() of drivers/block/xen-blkback/xenbus.c. */
  #react(): void {
    if (this.isDeaf || this.state === undefined) {
      return;
    }
    const { frontendState, state } = this;
    if (frontendState === '1' && state === '6') {
      this.#publish({ ...this.limits, state: '2' });
    } else if ((frontendState === '3' || frontendState === '4') && state !== '4') {
      this.#connect();
    } else if (frontendState === '5') {
      this.#publish({ state: '5' });
    } else if (frontendState === '6') {
      this.hasRing = false;
      this.#publish({ state: '6' });
    }
  }

  #connect(): void {
    const keys = this.store.below(this.frontendPath);
    if (this.refusals > 0) {
      this.refusals--;
      this.#publish({ state: '5' });
      return;
    }
    this.connections.push(keys);
    this.hasRing = true;
    this.#publish({ ...this.disk, state: '4' });
  }
}
