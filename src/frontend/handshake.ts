/**
 * The two halves of connecting (xen/include/public/io/blkif.h, "State Diagrams"): what we tell when
 * the back end is at InitWait, and what we read when it is Connected. Between them the back end
 * maps the rings.
 */

import type { XenStoreClient } from 'xenstore-client';
import { parseXenbusState, XenbusState } from '../blkif/index.ts';
import type { Attachment } from './attachment.ts';
import { type KeyReader, readDisk, readTransportLimits } from './backend-keys.ts';
import { Connection } from './connection.ts';
import { FrontendError } from './errors.ts';
import { isStoreLost } from './failures.ts';
import type { Life } from './life.ts';
import { type BackendLocation, readIfReadable } from './observation.ts';
import {
  chooseTransport,
  describeTransport,
  PLAIN_TRANSPORT,
  type TransportChoice,
} from './transport-choice.ts';

/** Conflicts that a consistent read bears: back end and toolstack are busy at the same moments. */
const READ_ATTEMPTS = 20;

/**
 * Grants rings, binds channels, and tells the back end, which is at `backendState`. The connection
 * is held from the moment that something is granted. Nothing is done when the back end has left
 * that state.
 */
export async function offerConnection(
  life: Life,
  backend: BackendLocation,
  backendState: XenbusState,
): Promise<void> {
  const { node, held } = life;
  const { store, host, want, abi, viewMemory } = life.options;
  // A back end that is past InitWait before us is an old one, which tells no limits.
  const limits =
    backendState === XenbusState.Initialised
      ? PLAIN_TRANSPORT
      : await readAt(store, backend.path, XenbusState.InitWait, (reader) =>
          readTransportLimits(reader, backend.path),
        );
  if (limits === undefined) {
    return;
  }
  const wanted = chooseTransport(want, limits);
  const madeAt = life.probe.mark(life.link?.domid);
  const connection = Connection.open(host, backend.domid, abi, wanted, viewMemory);
  held.hold(connection, madeAt);
  logTransport(life, wanted, connection.transport);
  const queues = connection.queues.map(({ ring, eventChannel }) => ({
    ringGrefs: ring.grefs,
    port: eventChannel.port,
  }));
  const neverTold = 'the back end was never told of it';
  try {
    if (!(await node.offer({ abi, isPersistent: want.isPersistent, queues }))) {
      held.finish(neverTold);
    }
  } catch (error) {
    // A transaction that failed changed nothing; one whose answer was lost may have.
    if (!isStoreLost(error)) {
      held.finish(neverTold);
    }
    throw error;
  }
}

/** What {@link completeConnection} gives. */
export interface CompletedConnection {
  readonly attachment: Attachment;
  /** `sectors` as it stands there. */
  readonly sectors: string | undefined;
}

/**
 * Reads the disk of the Connected back end, which tells it only now, and sets our state to
 * Connected. Undefined when our directory vanished, or the back end is not Connected any more.
 *
 * @throws FrontendError BAD_BACKEND
 */
export async function completeConnection(
  life: Life,
  connection: Connection,
  backend: BackendLocation,
): Promise<CompletedConnection | undefined> {
  const { node, attachment: last } = life;
  const { store, isSectorUnitTrusted, vbd, abi, want } = life.options;
  const reading = await readAt(store, backend.path, XenbusState.Connected, (reader) =>
    readDisk(reader, backend.path, isSectorUnitTrusted ?? false),
  );
  if (reading === undefined || !(await node.switchState(XenbusState.Connected))) {
    return undefined;
  }
  const { disk, sectors } = reading;
  await node.removeError();
  const attachment: Attachment = {
    vbd,
    backendId: backend.domid,
    backendPath: backend.path,
    abi,
    disk,
    queues: connection.queues,
    maxIndirectSegments: connection.transport.maxIndirectSegments,
    isPersistent: want.isPersistent && disk.isPersistent,
    generation: (last?.generation ?? 0) + 1,
    areGrantsLost: last !== undefined && last.backendId !== backend.domid,
  };
  return { attachment, sectors };
}

/**
 * Reads keys of a back end as they stand together while it is in `state`; undefined when it has
 * left that state. Its directory may vanish, and be made anew, between any two reads: a key that
 * is missing because of that says nothing about the disk.
 */
async function readAt<T>(
  store: XenStoreClient,
  backendPath: string,
  state: XenbusState,
  read: (reader: KeyReader) => Promise<T>,
): Promise<T | undefined> {
  const outcome = await store.transaction(
    async (transaction) => {
      const seen = parseXenbusState(await readIfReadable(transaction, `${backendPath}/state`));
      if (seen !== state) {
        return undefined;
      }
      try {
        return { value: await read(transaction) };
      } catch (error) {
        // Only believed once the transaction has shown that nothing changed meanwhile.
        if (error instanceof FrontendError) {
          return { error };
        }
        throw error;
      }
    },
    { attempts: READ_ATTEMPTS },
  );
  if (outcome?.error !== undefined) {
    throw outcome.error;
  }
  return outcome?.value;
}

function logTransport(
  { options, log, name }: Life,
  wanted: TransportChoice,
  granted: TransportChoice,
): void {
  for (const cut of wanted.cuts) {
    log.info(`${name}: ${cut}`);
  }
  if (granted !== wanted) {
    const { limitPages, source } = options.host.grantBudget();
    log.warn(
      `${name}: ${describeTransport(granted)} instead of ${describeTransport(wanted)}, ` +
        `since only ${limitPages} pages may be granted; raise the limit in ${source}.`,
    );
  }
}
