/** Where the front end reports what it does: one sentence a line, without a trailing newline. */
export interface FrontendLog {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
}

/** Says nothing. */
export const silentLog: FrontendLog = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
};
