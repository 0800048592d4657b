/**
 * Planted bugs, the test of the test: each changes the program under test as a slip of the keyboard
 * could, and must be found out by some history. The last one changes the world instead, and shows
 * that a back end which goes on after its end would not go unnoticed.
 */

import { NbdCmd } from 'nbd-server-ts/protocol';
import { XenStoreError } from 'xenstore-client';
import { GuestRings } from '../../src/dataplane/guest-rings.ts';
import { type Operation, Stage } from '../../src/dataplane/operation.ts';
import { type Part, PartRole } from '../../src/dataplane/part.ts';
import { RangeLock } from '../../src/dataplane/range-lock.ts';
import { WaitingClients } from '../../src/dataplane/waiting-clients.ts';
import { ZeroMap } from '../../src/dataplane/zero-map.ts';
import { Connection } from '../../src/frontend/connection.ts';
import { VbdNode } from '../../src/frontend/vbd-node.ts';
import { StopMode } from '../../src/sim/queue-runner.ts';
import { libc, PAGE_SIZE } from '../../src/sys/index.ts';
import type { Mutant } from './mutant.ts';
import type { SimulatedLane } from './simulated-lane.ts';
import type { TroubleName } from './trouble-names.ts';

/** Troubles after which requests are asked again. */
const RESTARTS: readonly TroubleName[] = ['rebind', 'backend-gone', 'detach-attach', 'slow'];
const CRASHES: readonly TroubleName[] = ['power-loss', 'crash-late'];

/** Replaces a method for all objects of a class; returns how to put it back. */
function replaceMethod<Class extends object, Name extends keyof Class>(
  prototype: Class,
  name: Name,
  method: Class[Name],
): () => void {
  const before = prototype[name];
  prototype[name] = method;
  return () => {
    prototype[name] = before;
  };
}

/** Learns to know the records of requests, which the ring shows only when they are answered. */
function watchParts({ ring }: SimulatedLane): Set<Part> {
  const parts = new Set<Part>();
  const take = ring.takeResponse.bind(ring);
  ring.takeResponse = () => {
    const part = take();
    if (part !== undefined) parts.add(part);
    return part;
  };
  return parts;
}

/** The request that an operation has just made of its pages, if its record is known. */
function partOf(
  parts: ReadonlySet<Part>,
  operation: Operation,
  firstPage: number,
): Part | undefined {
  return [...parts].find(
    (part) => part.isInFlight && part.operation === operation && part.firstPage === firstPage,
  );
}

const lostReplay: Mutant = {
  name: 'a request that is lost with its ring is not asked again',
  troubles: RESTARTS,
  changeLane(lane) {
    const parts = watchParts(lane);
    const resume = lane.ring.resume.bind(lane.ring);
    lane.ring.resume = (config, disk) => {
      for (const part of parts) {
        if (part.isInFlight && part.role === PartRole.DATA) {
          part.isInFlight = false;
          break;
        }
      }
      parts.clear();
      resume(config, disk);
    };
  },
};

const writeTakenAsDone: Mutant = {
  name: 'a write that is lost with its ring is taken as done',
  troubles: RESTARTS,
  changeLane(lane) {
    const parts = watchParts(lane);
    const resume = lane.ring.resume.bind(lane.ring);
    lane.ring.resume = (config, disk) => {
      for (const part of parts) {
        const { operation } = part;
        const isWrite = operation?.command === NbdCmd.WRITE && operation.stage === Stage.WRITE;
        if (!part.isInFlight || !isWrite || part.role !== PartRole.DATA) continue;
        // What a read of the same place would do to nobody's harm, in place of the write.
        part.blkifOp = 0;
      }
      parts.clear();
      resume(config, disk);
    };
  },
};

const takenTwice: Mutant = {
  name: 'a response is taken twice',
  changeLane({ ring }, random) {
    const pending = ring.pending.bind(ring);
    const take = ring.takeResponse.bind(ring);
    let again: Part | undefined;
    let extra = 0;
    ring.pending = () => {
      const count = pending();
      extra = count > 0 && random.chance(0.1) ? 1 : 0;
      return count < 0 ? count : count + extra;
    };
    ring.takeResponse = () => {
      if (extra > 0 && again !== undefined) {
        extra = 0;
        const part = again;
        again = undefined;
        return part;
      }
      again = take();
      return again;
    };
  },
};

const joinedForgotten: Mutant = {
  name: 'of requests that share a slot only the first is answered',
  changeLane({ ring }) {
    const take = ring.takeResponse.bind(ring);
    ring.takeResponse = () => {
      const part = take();
      if (part !== undefined) part.joined = undefined;
      return part;
    };
  },
};

const answeredTwice: Mutant = {
  name: 'a reply is sent twice',
  changeLane(lane, random) {
    const markDirty = lane.markDirty.bind(lane);
    lane.markDirty = (connection) => {
      markDirty(connection);
      const client = lane.clientOf(connection);
      if (client === undefined || !random.chance(0.02)) return;
      // The last header that was encoded leaves once more.
      const received = client.received.bind(client);
      client.received = (bytes) => {
        client.received = received;
        received(bytes);
        if (bytes.length === 16) received(bytes);
      };
    };
  },
};

const givenBackEarly: Mutant = {
  name: 'the pages of a write are free as soon as it is on the ring',
  changeLane(lane) {
    const parts = watchParts(lane);
    const { ring, pool } = lane;
    const transfer = ring.transfer.bind(ring);
    ring.transfer = (operation, firstPage, pages, lengthBytes) => {
      const last = transfer(operation, firstPage, pages, lengthBytes);
      const part = partOf(parts, operation, firstPage);
      if (part?.ownsPages === true && operation.command === NbdCmd.WRITE) {
        pool.giveList(firstPage, pages);
        part.ownsPages = false;
      }
      return last;
    };
  },
};

const sentFromFreePages: Mutant = {
  name: 'the pages of a read are free before its reply has left',
  changeLane(lane) {
    const { engine, pool } = lane;
    const markDirty = lane.markDirty.bind(lane);
    lane.markDirty = (connection) => {
      for (const operation of lane.operations) {
        const isRead = operation.command === NbdCmd.READ && operation.requester === connection;
        // Of one page, which needs no link to the next.
        if (operation.isActive || !isRead || operation.pageCount !== 1) continue;
        pool.give(operation.firstPage);
        operation.pageCount = 0;
      }
      markDirty(connection);
      engine.pump();
    };
  },
};

/** Answers a FUA write when it is written. */
const fuaIgnored: Mutant = {
  name: 'FUA is answered without a flush',
  troubles: CRASHES,
  changeLane({ engine }) {
    const start = engine.start.bind(engine);
    engine.start = (operation) => {
      operation.isFua = false;
      start(operation);
    };
  },
};

const flushIgnored: Mutant = {
  name: 'a flush is answered at once',
  troubles: CRASHES,
  changeLane({ engine }) {
    const start = engine.start.bind(engine);
    engine.start = (operation) => {
      if (operation.command === NbdCmd.FLUSH) engine.refuse(operation, 0);
      else start(operation);
    };
  },
};

const flushBeforeWrite: Mutant = {
  name: 'the flush of a FUA write goes before the write',
  troubles: CRASHES,
  changeLane({ engine, ring }) {
    const start = engine.start.bind(engine);
    engine.start = (operation) => {
      if (operation.isFua && ring.hasRoom) {
        const flush = engine.take();
        if (flush !== undefined) {
          flush.requester = {
            replyReady: (done: Operation) => engine.release(done),
            payloadWanted: () => undefined,
            payloadRefused: () => undefined,
          };
          operation.isFua = false;
          engine.startFlush(flush);
        }
      }
      start(operation);
    };
  },
};

const rangeLockIgnored: Mutant = {
  name: 'the range lock is ignored',
  install: () => replaceMethod(RangeLock.prototype, 'acquire', () => true),
};

const idBelieved: Mutant = {
  name: 'the id of a response is believed',
  troubles: ['lie'],
  changeLane(lane) {
    const parts = watchParts(lane);
    const { ring } = lane;
    const take = ring.takeResponse.bind(ring);
    Object.defineProperty(ring, 'fault', { get: () => undefined });
    ring.takeResponse = () => take() ?? [...parts].find((part) => part.isInFlight);
  },
};

const statusBelieved: Mutant = {
  name: 'the status of a response is not looked at',
  troubles: ['errors'],
  changeLane({ ring }) {
    const take = ring.takeResponse.bind(ring);
    ring.takeResponse = () => {
      const part = take();
      if (part !== undefined) part.status = 0;
      return part;
    };
  },
};

const writeNotTold: Mutant = {
  name: 'a write is not told to the map of zeroes',
  install() {
    const undoBegin = replaceMethod(ZeroMap.prototype, 'dataBegins', () => undefined);
    const undoEnd = replaceMethod(ZeroMap.prototype, 'dataEnds', () => undefined);
    return () => {
      undoBegin();
      undoEnd();
    };
  },
};

const guestForgotten: Mutant = {
  name: 'a lane that shares its ring sleeps on what others ask',
  troubles: ['other-queues'],
  install: () => replaceMethod(GuestRings.prototype, 'finalCheck', () => false),
};

const guestAnsweredByWrongId: Mutant = {
  name: 'answers of a shared ring have the id of its owner',
  troubles: ['other-queues'],
  changeLane({ ring }) {
    const take = ring.takeResponse.bind(ring);
    ring.takeResponse = () => {
      const part = take();
      if (part !== undefined) part.guestId = part.id;
      return part;
    };
  },
};

const evacuationLoses: Mutant = {
  name: 'pages that move to new grants lose what they hold',
  troubles: ['restore', 'move-backend', 'slow'],
  changeLane({ pool }) {
    const rebase = pool.rebase.bind(pool);
    pool.rebase = (config) => {
      rebase(config);
      libc.memset(config.address, 0x77, pool.pageCount * PAGE_SIZE);
    };
  },
};

const usesLostRing: Mutant = {
  name: 'requests are put on a ring that is lost',
  troubles: RESTARTS,
  changeLane({ ring }) {
    Object.defineProperty(ring, 'hasRoom', { get: () => ring.freeSlots > 0 });
  },
};

const doesNotNotify: Mutant = {
  name: 'the back end is not told of new requests',
  changeLane({ ring }, random) {
    const publish = ring.publish.bind(ring);
    ring.publish = () => publish() && random.chance(0.9);
  },
};

const sleepsTooEarly: Mutant = {
  name: 'the last look before sleeping is left out',
  changeLane({ ring }) {
    ring.finalCheck = () => false;
  },
};

const waitsForOperation: Mutant = {
  name: 'a client that waits for an operation is forgotten',
  install: () => replaceMethod(WaitingClients.prototype, 'wakeFirst', () => undefined),
};

const keysLeft: Mutant = {
  name: 'the keys of a connection are left behind',
  install: () =>
    replaceMethod(VbdNode.prototype, 'reset', function reset(this: VbdNode, state) {
      return this.switchState(state);
    }),
};

const ringKept: Mutant = {
  name: 'the ring is not given back',
  install: () => replaceMethod(Connection.prototype, 'release', () => undefined),
};

const deadChannelClosed: Mutant = {
  name: 'an event channel of before a restore is closed',
  troubles: ['restore'],
  install: () =>
    replaceMethod(Connection.prototype, 'releaseAfterRestore', function close(this: Connection) {
      this.release();
      return [];
    }),
};

const followsAtOnce: Mutant = {
  name: 'a back end that is named anew is followed before the old one is finished',
  troubles: ['move-backend', 'slow'],
  changeStore(store, environment) {
    const read = store.read.bind(store);
    store.read = async (path) => {
      const isOld =
        path.startsWith('/local/domain/') &&
        path.endsWith('/state') &&
        path !== `${environment.backendPath}/state`;
      if (isOld) throw new XenStoreError('ENOENT', 'The mutant does not want to see it.');
      return await read(path);
    };
  },
};

const endsTooEarly: Mutant = {
  name: 'a back end says that it is finished while it still executes',
  troubles: ['rebind', 'backend-gone', 'crash-late', 'slow'],
  changeEnvironment({ rings }) {
    const detach = rings.detach.bind(rings);
    rings.detach = (queueId, mode) => {
      const detached = detach(queueId, mode);
      // One that answers to the end needs its ring to be there.
      return mode === StopMode.CRASH ? Promise.resolve() : detached;
    };
  },
};

export const MUTANTS: readonly Mutant[] = [
  lostReplay,
  writeTakenAsDone,
  takenTwice,
  joinedForgotten,
  answeredTwice,
  givenBackEarly,
  sentFromFreePages,
  fuaIgnored,
  flushIgnored,
  flushBeforeWrite,
  rangeLockIgnored,
  idBelieved,
  statusBelieved,
  writeNotTold,
  guestForgotten,
  guestAnsweredByWrongId,
  evacuationLoses,
  usesLostRing,
  doesNotNotify,
  sleepsTooEarly,
  waitsForOperation,
  keysLeft,
  ringKept,
  deadChannelClosed,
  followsAtOnce,
  endsTooEarly,
];
