// A daemon to look at whose numbers are the test's own.
import { Counter, Counters } from '../../src/dataplane/index.ts';
import type { MonitoredVbd, MonitorSource } from '../../src/monitor/index.ts';

/** A lane that turns when it is woken, while it can. */
export class FakeLane {
  readonly counters: Counters = new Counters();
  isStuck = false;

  wake(): void {
    if (!this.isStuck) this.counters.add(Counter.TURNS, 1);
  }
}

/** A vbd with these lanes. */
export function fakeVbd(
  lanes: readonly FakeLane[],
  changes: Partial<MonitoredVbd> = {},
): MonitoredVbd {
  return {
    name: 'xvdb',
    exportName: 'xvdb',
    sizeBytes: 2 ** 30,
    isReadOnly: false,
    isWaiting: false,
    slotCount: 128,
    pageCount: 768,
    features: { flush: 'flush-cache' },
    lanes,
    ...changes,
  };
}

/** A daemon that serves these vbds. */
export function fakeSource(
  vbds: readonly MonitoredVbd[],
  changes: Partial<MonitorSource> = {},
): MonitorSource {
  return {
    version: '1.2.3',
    state: () => 'serving',
    vbds: () => vbds,
    clients: () => [],
    refusals: () => ({ tooMany: 4, handshake: 5 }),
    ...changes,
  };
}
