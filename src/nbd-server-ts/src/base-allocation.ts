// The context `base:allocation`: which ranges are holes, which read as zeroes. It reports what the
// backend knows; a backend that does not know has one allocated extent, which is always true.

import type { MetaContext } from './meta-context.ts';

/** `base:allocation`, with NbdState.HOLE and NbdState.ZERO as its flags. */
export const baseAllocation: MetaContext = {
  name: 'base:allocation',
  isOfferedFor: () => true,
  extents: (backend, offset, lengthBytes) =>
    backend.allocation?.(offset, lengthBytes) ?? [{ lengthBytes, flags: 0 }],
};
