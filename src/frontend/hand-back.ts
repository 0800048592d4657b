/**
 * Gives a closed vbd back to the kernel's driver, which only takes one that is being set up: our
 * state at Initialising, the back end at InitWait. Binding the driver is the caller's next step.
 */

import type { XenStoreClient } from 'xenstore-client';
import { formatXenbusState, parseXenbusState, XenbusState } from '../blkif/index.ts';
import { FrontendError } from './errors.ts';
import { describeVbd, type VbdDescription } from './vbd.ts';
import { VbdNode } from './vbd-node.ts';

/**
 * Removes our keys, sets our state to Initialising and waits for the back end.
 *
 * @throws FrontendError NO_VBD when the vbd is gone, TIMEOUT when the back end does not follow
 *   within `timeoutMs`.
 */
export async function prepareHandBack(
  store: XenStoreClient,
  vbd: VbdDescription,
  timeoutMs: number,
): Promise<void> {
  const { backendPath } = await describeVbd(store, vbd.id);
  const isThere = await new VbdNode(store, vbd.path).reset(XenbusState.Initialising);
  if (!isThere || backendPath === undefined) {
    throw new FrontendError('NO_VBD', `${vbd.name} is gone; there is nothing to hand back.`);
  }
  let seen: XenbusState = XenbusState.Unknown;
  try {
    await store.waitFor(
      `${backendPath}/state`,
      (value) => {
        seen = parseXenbusState(value);
        return seen === XenbusState.InitWait;
      },
      { timeoutMs },
    );
  } catch (error) {
    throw new FrontendError(
      'TIMEOUT',
      `${vbd.name} cannot be handed back: the state of its back end ${backendPath} is ` +
        `${formatXenbusState(seen)} instead of ${formatXenbusState(XenbusState.InitWait)}. Detach and attach the disk.`,
      { cause: error },
    );
  }
}
