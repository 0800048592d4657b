/** What the owner is told when a connection ends, for each event that ends one. */

import type { DetachReason } from './attachment.ts';
import type { FrontendEvent } from './life-cycle.ts';

/** Events that are not here end a drain, which has its own reason, or are the owner's own wish. */
export const DETACH_REASONS: Readonly<Partial<Record<FrontendEvent, DetachReason>>> = {
  backendClosed: 'backend-closed',
  backendRestarted: 'backend-restarted',
  backendReset: 'backend-gone',
  backendGone: 'backend-gone',
  unpluggedForGood: 'vbd-gone',
  vbdGone: 'vbd-gone',
  vbdReset: 'vbd-reset',
  vbdResetOpen: 'vbd-reset',
  restored: 'guest-restored',
  givenUp: 'given-up',
};
