// A disk in a file, through Node's FileHandle.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { BlockBackend } from './backend.ts';
import { NbdError, NbdServerError } from './errors.ts';

/** How to open a file. */
export interface FileBackendOptions {
  /** Open it for reading only. Default false. */
  readonly isReadOnly?: boolean;
  /** Bytes to serve. Default: the size of the file. Needed for block devices. */
  readonly sizeBytes?: number;
}

/**
 * Serves a file. A flush is fdatasync. Node has no call to punch holes, so there is no trim; zeroes
 * are written by the server.
 */
export class FileBackend implements BlockBackend {
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  readonly #file: FileHandle;

  private constructor(file: FileHandle, sizeBytes: number, isReadOnly: boolean) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.isReadOnly = isReadOnly;
  }

  /**
   * Opens `path`. Close the backend when the server that uses it is closed.
   * @throws NbdServerError ERR_NBD_FILE_SIZE when there is nothing to serve, or a system error.
   */
  static async open(path: string, options: FileBackendOptions = {}): Promise<FileBackend> {
    const isReadOnly = options.isReadOnly ?? false;
    const file = await open(path, isReadOnly ? constants.O_RDONLY : constants.O_RDWR);
    try {
      const stats = await file.stat();
      if (!stats.isFile() && options.sizeBytes === undefined) {
        throw new NbdServerError(
          'ERR_NBD_FILE_SIZE',
          `${path} is not a regular file, so its size is not known: pass sizeBytes.`,
        );
      }
      if (stats.isFile() && options.sizeBytes !== undefined && options.sizeBytes > stats.size) {
        throw new NbdServerError(
          'ERR_NBD_FILE_SIZE',
          `${path} has ${stats.size} bytes, fewer than the ${options.sizeBytes} to serve: extend ` +
            'it first.',
        );
      }
      return new FileBackend(file, options.sizeBytes ?? stats.size, isReadOnly);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async read(target: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const { bytesRead } = await this.#file.read(target, done, target.length - done, at);
      if (bytesRead === 0) {
        // Somebody truncated the file. The rest of the buffer was never filled.
        throw new NbdError('EIO', 'The file ends before the export does.', { offset: at });
      }
      done += bytesRead;
    }
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < source.length; ) {
      const left = source.length - done;
      const { bytesWritten } = await this.#file.write(source, done, left, offset + done);
      done += bytesWritten;
    }
  }

  async flush(): Promise<void> {
    await this.#file.datasync();
  }

  /** Closes the file. Requests that come afterwards fail. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}
