// What the handshake asks its owner: which exports there are.

import type { ExportInfo } from './export-info.ts';

/**
 * One export as clients see it. Entries do not change: when a disk grows, the catalog answers with
 * a new entry, and connections that were made before keep the entry they were given.
 */
export interface ExportEntry extends ExportInfo {
  /** The canonical name, which may differ from the name a client asked for. At most 4096 bytes. */
  readonly name: string;
  /** A text for people, at most 4096 bytes; empty for none. */
  readonly description: string;
  /** Hide the export from clients that did not start TLS. Default false. */
  readonly isTlsRequired?: boolean;
  /** The names of the metadata contexts it has, `base:allocation` for one. Default none. */
  readonly metaContextNames?: readonly string[];
}

/** The exports of a server. Called during handshakes, never during transmission. */
export interface ExportCatalog<Entry extends ExportEntry = ExportEntry> {
  /** The export a client means by `name`; the empty name means the default export. */
  find(name: string): Entry | undefined;
  /** What NBD_OPT_LIST shows; undefined when listing is switched off. */
  list(): Iterable<Entry> | undefined;
}
