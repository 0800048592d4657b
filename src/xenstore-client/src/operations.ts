/**
 * The operations on nodes, shared by the client (no transaction) and by a transaction. Paths are
 * absolute, or relative to this domain's own directory, /local/domain/<domid>.
 */
import { bytesToUtf8, valueToBytes } from './body.ts';
import type { XsAnswer } from './connection.ts';
import { XsType } from './constants.ts';
import { XenStoreError } from './errors.ts';
import { quotePath } from './path.ts';
import type { Permission } from './permissions.ts';
import type { DirectoryPartReply } from './reply.ts';
import type { XsRequest } from './request.ts';

/** How often a list of children is begun anew because the node changed under the reader. */
const DIRECTORY_ATTEMPTS = 10;
/** Most bytes of names that a directory may have; xenstored's own quotas stay far below. */
const DIRECTORY_BYTES_MAX = 8 * 1024 * 1024;

/**
 * What can be done with nodes. All methods reject with XenStoreError; its `code` is XenStore's
 * error name (`ENOENT`, `EACCES`, ...), or `CLOSED` when the connection ended.
 */
export abstract class StoreOperations {
  /** Sends a request; the answer has the request's type. */
  protected abstract ask(request: XsRequest): Promise<XsAnswer>;

  /** The value of a node as UTF-8 text. Bytes that are not UTF-8 become U+FFFD. */
  async read(path: string): Promise<string> {
    return bytesToUtf8(await this.readBytes(path));
  }

  /** The value of a node, byte by byte. */
  async readBytes(path: string): Promise<Uint8Array> {
    const answer = await this.ask({ type: XsType.READ, path });
    return answerOfType(answer, XsType.READ).value;
  }

  /** The value of a node as UTF-8 text, or undefined if there is no such node. */
  async tryRead(path: string): Promise<string | undefined> {
    try {
      return await this.read(path);
    } catch (error) {
      if (error instanceof XenStoreError && error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Sets the value of a node, which is created with its parents if need be. Text is UTF-8. */
  async write(path: string, value: string | Uint8Array): Promise<void> {
    await this.ask({ type: XsType.WRITE, path, value: valueToBytes(value) });
  }

  /** Creates a node and its parents with empty values; one that exists is left as it is. */
  async mkdir(path: string): Promise<void> {
    await this.ask({ type: XsType.MKDIR, path });
  }

  /**
   * Removes a node and all below it. A node that does not exist is no error, but a parent that
   * does not is (`ENOENT`).
   */
  async rm(path: string): Promise<void> {
    await this.ask({ type: XsType.RM, path });
  }

  /** The names of a node's children, in the server's order; as many requests as it takes. */
  async directory(path: string): Promise<string[]> {
    try {
      const answer = await this.ask({ type: XsType.DIRECTORY, path });
      return [...answerOfType(answer, XsType.DIRECTORY).names];
    } catch (error) {
      if (!(error instanceof XenStoreError) || error.code !== 'E2BIG') throw error;
      return await this.#directoryInParts(path, error);
    }
  }

  /** Who may do what with a node: the first entry is its owner and the default for all others. */
  async getPermissions(path: string): Promise<Permission[]> {
    const answer = await this.ask({ type: XsType.GET_PERMS, path });
    return [...answerOfType(answer, XsType.GET_PERMS).permissions];
  }

  /** Sets who may do what with a node; only its owner may. */
  async setPermissions(path: string, permissions: readonly Permission[]): Promise<void> {
    await this.ask({ type: XsType.SET_PERMS, path, permissions });
  }

  /** Reads a list that is too long for one packet, from the start again if it changes meanwhile. */
  async #directoryInParts(path: string, tooBig: XenStoreError): Promise<string[]> {
    for (let attempt = 1; attempt <= DIRECTORY_ATTEMPTS; attempt += 1) {
      const names = await this.#directoryOfOneGeneration(path, tooBig);
      if (names !== undefined) return names;
    }
    throw new XenStoreError(
      'EAGAIN',
      `${quotePath(path)} changed ${DIRECTORY_ATTEMPTS} times while its children were listed.`,
      { path },
    );
  }

  /** The whole list, or undefined if the node's generation changed between two parts. */
  async #directoryOfOneGeneration(
    path: string,
    tooBig: XenStoreError,
  ): Promise<string[] | undefined> {
    const names: string[] = [];
    let generation: string | undefined;
    let offsetBytes = 0;
    while (offsetBytes <= DIRECTORY_BYTES_MAX) {
      const part = await this.#directoryPart(path, offsetBytes, tooBig);
      if (generation !== undefined && part.generation !== generation) return undefined;
      generation = part.generation;
      for (const name of part.names) {
        names.push(name);
        offsetBytes += name.length + 1;
      }
      if (part.isLast) return names;
    }
    throw new XenStoreError(
      'E2BIG',
      `The names of the children of ${quotePath(path)} take more than ` +
        `${DIRECTORY_BYTES_MAX} bytes.`,
      { path },
    );
  }

  async #directoryPart(
    path: string,
    offsetBytes: number,
    tooBig: XenStoreError,
  ): Promise<DirectoryPartReply> {
    try {
      const answer = await this.ask({ type: XsType.DIRECTORY_PART, path, offsetBytes });
      return answerOfType(answer, XsType.DIRECTORY_PART);
    } catch (error) {
      // A server that has no DIRECTORY_PART: the first answer is the one that tells the truth.
      if (error instanceof XenStoreError && error.code === 'ENOSYS') throw tooBig;
      throw error;
    }
  }
}

/** Narrows an answer to the type that the connection has already checked it to be. */
export function answerOfType<T extends XsAnswer['type']>(
  answer: XsAnswer,
  type: T,
): Extract<XsAnswer, { type: T }> {
  if (answer.type !== type) throw new TypeError(`expected an answer of type ${type}`);
  return answer as Extract<XsAnswer, { type: T }>;
}
