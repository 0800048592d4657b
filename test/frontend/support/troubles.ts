/** What can happen to a front end, as names that a history can be made of. */

import { XsType } from 'xenstore-client/wire';
import type { World } from './world.ts';

const FE = 'device/vbd/51728';

/** The name of a trouble. */
export type Trouble =
  | 'forceClosing'
  | 'forceClosed'
  | 'bindAnew'
  | 'backendGone'
  | 'frontendGone'
  | 'unplug'
  | 'plugAnew'
  | 'detach'
  | 'resetState'
  | 'refuse'
  | 'noPages'
  | 'pages'
  | 'deaf'
  | 'hearing'
  | 'slowOwner'
  | 'promptOwner'
  | 'letGo'
  | 'resize'
  | 'conflict'
  | 'fireAll';

/** What may happen. Each leaves the world in a state that a real one can be in. */
export const TROUBLES: Readonly<Record<Trouble, (world: World) => unknown>> = {
  forceClosing: (world) => world.back.state !== undefined && world.back.setState(5),
  forceClosed: (world) => {
    if (world.back.state !== undefined) {
      world.back.hasRing = false;
      world.back.setState(6);
    }
  },
  bindAnew: (world) => world.back.state !== undefined && world.back.probe(),
  backendGone: (world) => world.back.unplugBackendOnly(),
  frontendGone: (world) => world.store.remove(world.back.frontendPath),
  unplug: (world) => world.back.unplug(),
  plugAnew: (world) => {
    world.back.unplug();
    world.back.plug();
  },
  detach: (world) => world.back.state !== undefined && world.back.detach(),
  resetState: (world) =>
    world.back.frontendState !== undefined && world.store.set(`${FE}/state`, '1'),
  refuse: (world) => {
    world.back.refusals = 2;
  },
  noPages: (world) => {
    world.host.limitPages = 0;
  },
  pages: (world) => {
    world.host.limitPages = 1024;
  },
  deaf: (world) => {
    world.back.isDeaf = true;
  },
  hearing: (world) => {
    world.back.isDeaf = false;
  },
  slowOwner: (world) => {
    world.owner.isPrompt = false;
  },
  promptOwner: (world) => {
    world.owner.isPrompt = true;
    world.owner.letGo();
  },
  letGo: (world) => world.owner.letGo(),
  resize: (world) => world.back.state === '4' && world.back.resize('262144'),
  /** XenStore gives up on the next transactions: others are always faster. */
  conflict: (world) => {
    for (let count = 0; count < 25; count++) {
      world.store.failures.push({ type: XsType.TRANSACTION_END, name: 'EAGAIN' });
    }
  },
  /** As after a restore on another host, where the guest got its old number. */
  fireAll: (world) => world.store.fireAll(),
};
