/** NBD error numbers in words, with the counter of each. */

import { Counter } from '../dataplane/index.ts';

/** The counters of replies with an error, by the error's name. */
export const ERROR_NAMES: ReadonlyMap<string, Counter> = new Map<string, Counter>([
  ['EPERM', Counter.ERRORS_EPERM],
  ['EIO', Counter.ERRORS_EIO],
  ['ENOMEM', Counter.ERRORS_ENOMEM],
  ['EINVAL', Counter.ERRORS_EINVAL],
  ['ENOSPC', Counter.ERRORS_ENOSPC],
  ['EOVERFLOW', Counter.ERRORS_EOVERFLOW],
  ['ENOTSUP', Counter.ERRORS_ENOTSUP],
  ['ESHUTDOWN', Counter.ERRORS_ESHUTDOWN],
]);
