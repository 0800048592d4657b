// A socket as a stream of bytes that a test takes in pieces of a known length, with a bound on how
// long it waits.
import assert from 'node:assert/strict';
import { createConnection, type Socket } from 'node:net';

/** Longer than any server under test may take, and short enough for a test to end. */
const RECEIVE_TIMEOUT_MS = 60_000;

/** Where a server listens. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

interface Waiting {
  readonly length: number;
  readonly resolve: (bytes: Buffer | undefined) => void;
}

/** The connection ended, by the server or by an error, while something was expected of it. */
export class ConnectionEnded extends Error {
  override readonly name = 'ConnectionEnded';
}

export class ByteConnection {
  readonly #socket: Socket;
  readonly #onEnd: Promise<void>;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #waiting: Waiting | undefined;
  #hasEnded = false;
  #error: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#buffered += chunk.length;
      this.#deliver();
    });
    this.#onEnd = new Promise((resolve) => {
      const end = (): void => {
        this.#hasEnded = true;
        this.#deliver();
        resolve();
      };
      socket.on('end', end);
      socket.on('close', end);
      socket.on('error', (error) => {
        this.#error = error;
        end();
      });
    });
  }

  /** Opens the connection and sends nothing. */
  static open(address: Address): Promise<ByteConnection> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ ...address, allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new ByteConnection(socket));
      });
    });
  }

  /** The socket's error, if it had one. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Bytes that came and were not taken. */
  get bufferedBytes(): number {
    return this.#buffered;
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /**
   * The next `length` bytes, or undefined when the server closes before.
   *
   * @throws Error when it stays silent for longer than `timeoutMs`.
   */
  receiveOrEnd(
    length: number,
    timeoutMs: number = RECEIVE_TIMEOUT_MS,
  ): Promise<Buffer | undefined> {
    assert.ok(!this.#waiting, 'one reader at a time');
    return new Promise((resolve, reject) => {
      const late = (): void => {
        this.#waiting = undefined;
        reject(new Error(`the server sent less than ${length} bytes in ${timeoutMs} ms`));
      };
      const isBounded = timeoutMs !== Number.POSITIVE_INFINITY;
      const timer = isBounded ? setTimeout(late, timeoutMs) : undefined;
      const waiting = {
        length,
        resolve: (bytes: Buffer | undefined): void => {
          clearTimeout(timer);
          resolve(bytes);
        },
      };
      this.#waiting = waiting;
      this.#deliver();
    });
  }

  /**
   * The next `length` bytes.
   *
   * @throws ConnectionEnded when the server closes before; Error when it stays silent.
   */
  async receive(length: number): Promise<Buffer> {
    const bytes = await this.receiveOrEnd(length);
    if (bytes) return bytes;
    const what = `${length} bytes were expected, ${this.#buffered} came`;
    throw new ConnectionEnded(`the server closed the connection; ${what}`, { cause: this.#error });
  }

  /**
   * Waits until the server has closed the connection, throwing away what it still sends.
   *
   * @throws Error when it keeps the connection open for longer than `timeoutMs`.
   */
  async receiveEnd(timeoutMs: number = RECEIVE_TIMEOUT_MS): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`the server did not close the connection within ${timeoutMs} ms`));
      }, timeoutMs);
    });
    await Promise.race([this.#onEnd, late]).finally(() => clearTimeout(timer));
  }

  /** Half-closes: the server sees the end of our bytes, and can still answer. */
  endSending(): void {
    this.#socket.end();
  }

  /** Drops the connection on the spot. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Stops reading from the socket, as a slow client does, until {@link resume}. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Hands the reader its bytes once they are all here, or the news that they never will be. */
  #deliver(): void {
    const waiting = this.#waiting;
    if (!waiting) return;
    if (this.#buffered >= waiting.length) {
      const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      const bytes = all ?? Buffer.alloc(0);
      const rest = bytes.subarray(waiting.length);
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#buffered = rest.length;
      this.#waiting = undefined;
      waiting.resolve(bytes.subarray(0, waiting.length));
    } else if (this.#hasEnded) {
      this.#waiting = undefined;
      waiting.resolve(undefined);
    }
  }
}
