/**
 * A transaction: reads and writes on a snapshot, kept all or none. docs/misc/xenstore.txt: the end
 * of a transaction fails with EAGAIN when somebody else changed what it saw, and then the whole
 * of it must be done again.
 */
import type { XenStoreConnection, XsAnswer } from './connection.ts';
import { XsType } from './constants.ts';
import { XenStoreError } from './errors.ts';
import { answerOfType, StoreOperations } from './operations.ts';
import type { XsRequest } from './request.ts';

/** The operations inside one transaction. It is dead once the function it was given to returned. */
export class XenStoreTransaction extends StoreOperations {
  readonly #connection: XenStoreConnection;
  readonly #id: number;
  readonly #open = new Set<Promise<unknown>>();
  #hasEnded = false;

  constructor(connection: XenStoreConnection, id: number) {
    super();
    this.#connection = connection;
    this.#id = id;
  }

  protected override ask(request: XsRequest): Promise<XsAnswer> {
    if (this.#hasEnded) {
      const message =
        'This transaction has ended; its requests must be made and awaited inside it.';
      return Promise.reject(new XenStoreError('EINVAL', message));
    }
    const answer = this.#connection.request(request, this.#id);
    const settled = answer.catch(() => undefined).finally(() => this.#open.delete(settled));
    this.#open.add(settled);
    return answer;
  }

  /** Ends the transaction after the requests that are still open, so that none comes too late. */
  async end(commit: boolean): Promise<void> {
    this.#hasEnded = true;
    await Promise.all(this.#open);
    await this.#connection.request({ type: XsType.TRANSACTION_END, commit }, this.#id);
  }
}

/**
 * Runs `action` in a transaction and commits it; again from the start, up to `attempts` times, when
 * the commit conflicts. When `action` throws, the transaction is dropped and its error passed on.
 */
export async function runTransaction<T>(
  connection: XenStoreConnection,
  action: (transaction: XenStoreTransaction) => T | Promise<T>,
  attempts: number,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    const transaction = await startTransaction(connection);
    const result = await runOrAbort(transaction, action);
    try {
      await transaction.end(true);
      return result;
    } catch (error) {
      if (!(error instanceof XenStoreError) || error.code !== 'EAGAIN') throw error;
      if (attempt < attempts) continue;
      throw new XenStoreError(
        'EAGAIN',
        `A XenStore transaction conflicted with other clients ${attempts} times; ` +
          'nothing was changed.',
        { cause: error },
      );
    }
  }
}

async function startTransaction(connection: XenStoreConnection): Promise<XenStoreTransaction> {
  const answer = await connection.request({ type: XsType.TRANSACTION_START }, 0);
  const { transactionId } = answerOfType(answer, XsType.TRANSACTION_START);
  return new XenStoreTransaction(connection, transactionId);
}

async function runOrAbort<T>(
  transaction: XenStoreTransaction,
  action: (transaction: XenStoreTransaction) => T | Promise<T>,
): Promise<T> {
  try {
    return await action(transaction);
  } catch (error) {
    // Whether the server could be told changes nothing: an open transaction has no effect, and
    // the error of the action is the one to report.
    await transaction.end(false).catch(() => undefined);
    throw error;
  }
}
