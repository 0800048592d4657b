/** The error of an attach that must fail. */

import { FrontendError, type FrontendOptions } from '../../../src/frontend/index.ts';
import type { World } from './world.ts';

/** Attaches, with time moved on by `afterMs`, and returns how that failed. */
export async function attachFailure(
  world: World,
  changes: Partial<FrontendOptions> = {},
  afterMs = 60_000,
): Promise<FrontendError> {
  const frontend = await world.frontend(changes);
  const attempt = frontend.attach().then(
    () => new Error('it attached'),
    (error: unknown) => error,
  );
  await world.clock.advance(afterMs);
  const error = await attempt;
  if (!(error instanceof FrontendError)) {
    throw error;
  }
  return error;
}
