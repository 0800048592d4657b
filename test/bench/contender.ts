// A server that takes part: started once, and again whenever it has died.
import type { RunningServer, ServeOptions, ServerKind } from '../support/nbd-server.ts';
import { findProgram } from '../support/program.ts';

export class Contender {
  readonly name: string;
  /** Most resident bytes seen during a load. */
  peakResidentBytes = 0;
  readonly #kind: ServerKind;
  readonly #options: ServeOptions;
  #server: RunningServer | undefined;

  constructor(kind: ServerKind, options: ServeOptions) {
    this.name = kind.name;
    this.#kind = kind;
    this.#options = options;
  }

  /** Where it listens. */
  get unixPath(): string {
    return this.#options.unixPath;
  }

  /** Why this server cannot take part at all, or undefined. */
  get absence(): string | undefined {
    const missing = this.#kind.needs.filter((program) => !findProgram(program));
    if (missing.length === 0) return undefined;
    return `no ${missing.join(', ')}: apt-get install ${this.#kind.debianPackage}`;
  }

  /**
   * Runs `work` against the server.
   *
   * @throws Error of the start or of the work; when the server died of it, the message says so.
   */
  async use<T>(work: (server: RunningServer) => Promise<T>): Promise<T> {
    if (this.#server?.endedHow !== undefined) this.#server = undefined;
    this.#server ??= await this.#kind.start(this.#options);
    const server = this.#server;
    try {
      return await work(server);
    } catch (error) {
      if (server.endedHow === undefined) throw error;
      throw new Error(`the server died: ${server.endedHow}`, { cause: error });
    }
  }

  async stop(): Promise<void> {
    if (this.#server && this.#server.endedHow === undefined) await this.#server.stop();
  }
}
