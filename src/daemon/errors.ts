/**
 * Why the daemon did not start, or stopped. The message is one sentence for people: what happened,
 * to what, and what to do next.
 */
export class DaemonError extends Error {
  override readonly name = 'DaemonError';
}

/** The command line asks for something that cannot be: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
