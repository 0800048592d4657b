// The exports of a server: names, backends, and the entries the handshake asks for. An entry is
// made when it is asked for, so a device that grew shows its new size to new clients.

import assert from 'node:assert/strict';
import { type BlockBackend, type ExportInfoOptions, exportInfoOf } from './backend.ts';
import { NBD_MAX_STRING_BYTES } from './constants.ts';
import { NbdServerError } from './errors.ts';
import type { ExportCatalog, ExportEntry } from './export-catalog.ts';
import type { MetaContext } from './meta-context.ts';
import { SharedFlush } from './shared-flush.ts';

/** One export of a server. */
export interface ExportConfig extends ExportInfoOptions {
  /** What clients ask for: up to 4096 bytes of UTF-8 without NUL. May be empty. */
  readonly name: string;
  /** A text for people, up to 4096 bytes. */
  readonly description?: string;
  /** The device. One backend may stand behind several exports. */
  readonly backend: BlockBackend;
  /** Show it to nobody who did not start TLS. Default false. */
  readonly isTlsRequired?: boolean;
}

/** An entry of the catalog with what serves it. */
export interface ServedExport extends ExportEntry {
  readonly backend: BlockBackend;
  readonly flush: SharedFlush;
  readonly contexts: readonly MetaContext[];
}

interface Registration {
  readonly config: ExportConfig;
  readonly flush: SharedFlush;
}

/** The exports of one server, in the order they were added. The first is the default export. */
export class ServedExports implements ExportCatalog<ServedExport> {
  readonly #registrations = new Map<string, Registration>();
  readonly #contexts: readonly MetaContext[];
  readonly #canList: boolean;
  readonly #onBadExport: (name: string, reason: string) => void;

  constructor(
    contexts: readonly MetaContext[],
    canList: boolean,
    onBadExport: (name: string, reason: string) => void,
  ) {
    this.#contexts = contexts;
    this.#canList = canList;
    this.#onBadExport = onBadExport;
  }

  /** @throws NbdServerError ERR_NBD_EXPORT_EXISTS, or AssertionError for an impossible export. */
  add(config: ExportConfig): void {
    assertText(config.name, 'name');
    assertText(config.description ?? '', 'description');
    exportInfoOf(config.backend, config);
    if (this.#registrations.has(config.name)) {
      throw new NbdServerError(
        'ERR_NBD_EXPORT_EXISTS',
        `There is an export "${config.name}" already: remove it first.`,
      );
    }
    const { backend } = config;
    const shared = [...this.#registrations.values()].find(
      (registration) => registration.config.backend === backend,
    );
    const flush = shared?.flush ?? new SharedFlush(async () => backend.flush?.());
    this.#registrations.set(config.name, { config, flush });
  }

  /** Clients that chose it keep it. False when there is none of that name. */
  remove(name: string): boolean {
    return this.#registrations.delete(name);
  }

  find(name: string): ServedExport | undefined {
    let registration = this.#registrations.get(name);
    if (registration === undefined && name === '') {
      registration = this.#registrations.values().next().value;
    }
    return registration === undefined ? undefined : this.#entryOf(registration);
  }

  list(): ServedExport[] | undefined {
    if (!this.#canList) return undefined;
    return [...this.#registrations.values()].flatMap(
      (registration) => this.#entryOf(registration) ?? [],
    );
  }

  /** Flushes each backend once; the first failure is thrown after all were tried. */
  async flushAll(): Promise<void> {
    const flushes = new Set<SharedFlush>();
    for (const { flush } of this.#registrations.values()) flushes.add(flush);
    const results = await Promise.allSettled([...flushes].map((flush) => flush.request()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #entryOf({ config, flush }: Registration): ServedExport | undefined {
    const { name, description, backend, isTlsRequired } = config;
    const contexts = this.#contexts.filter((context) => context.isOfferedFor(backend));
    try {
      return {
        ...exportInfoOf(backend, config),
        name,
        description: description ?? '',
        isTlsRequired: isTlsRequired ?? false,
        metaContextNames: contexts.map((context) => context.name),
        backend,
        flush,
        contexts,
      };
    } catch (error) {
      // The backend changed into something that cannot be offered; that is no reason to take other
      // exports away from their clients.
      this.#onBadExport(name, error instanceof Error ? error.message : String(error));
      return undefined;
    }
  }
}

function assertText(text: string, what: string): void {
  assert(!text.includes('\0'), `The ${what} of an export has no NUL character.`);
  assert(
    Buffer.byteLength(text) <= NBD_MAX_STRING_BYTES,
    `The ${what} of an export has at most ${NBD_MAX_STRING_BYTES} bytes.`,
  );
}
