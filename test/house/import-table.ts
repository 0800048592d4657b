// Who may import whom: the table of the design, as data. tsconfig.json of each folder makes a
// breach a compile error; house.test.ts holds both against this table.

export interface ImportRule {
  /** Folders under src/, imported through their index.ts. */
  readonly folders: readonly string[];
  /** Packages by specifier, those of this repository included. */
  readonly packages: readonly string[];
  /** Of these packages types alone. */
  readonly typesOnly?: readonly string[];
  /** Modules of Node. */
  readonly usesNode: boolean;
}

export const IMPORT_TABLE: Readonly<Record<string, ImportRule>> = {
  'xenstore-client': { folders: [], packages: [], usesNode: true },
  'nbd-server-ts': { folders: [], packages: [], usesNode: true },
  blkif: { folders: [], packages: [], usesNode: false },
  sys: { folders: [], packages: ['koffi'], usesNode: true },
  host: {
    folders: [],
    packages: ['xenstore-client'],
    typesOnly: ['xenstore-client'],
    usesNode: true,
  },
  xen: {
    folders: ['sys', 'host'],
    packages: ['xenstore-client', 'xenstore-client/wire'],
    usesNode: true,
  },
  sim: {
    folders: ['sys', 'host', 'blkif'],
    packages: ['xenstore-client', 'xenstore-client/wire'],
    usesNode: true,
  },
  frontend: { folders: ['host', 'blkif'], packages: ['xenstore-client'], usesNode: true },
  dataplane: {
    folders: ['host', 'sys', 'blkif'],
    packages: ['nbd-server-ts/protocol'],
    usesNode: true,
  },
  block: {
    folders: ['frontend', 'host', 'blkif', 'sys', 'xen', 'sim'],
    packages: ['xenstore-client'],
    usesNode: true,
  },
  monitor: { folders: ['dataplane'], packages: ['prom-client'], usesNode: true },
  trace: { folders: ['dataplane'], packages: ['nbd-server-ts/protocol'], usesNode: true },
  daemon: {
    folders: [
      'monitor',
      'trace',
      'block',
      'frontend',
      'dataplane',
      'host',
      'blkif',
      'sys',
      'xen',
      'sim',
    ],
    packages: ['xenstore-client', 'nbd-server-ts', 'nbd-server-ts/protocol', 'pino'],
    usesNode: true,
  },
  survey: {
    folders: ['daemon', 'frontend', 'host', 'blkif', 'sys', 'xen'],
    packages: ['xenstore-client'],
    usesNode: true,
  },
  'nbd-device': {
    folders: ['daemon', 'sys'],
    packages: ['nbd-server-ts/protocol'],
    usesNode: true,
  },
  service: { folders: ['daemon'], packages: [], usesNode: true },
  top: { folders: ['daemon', 'monitor'], packages: [], usesNode: true },
  cli: {
    folders: [
      'survey',
      'service',
      'nbd-device',
      'top',
      'trace',
      'daemon',
      'block',
      'blkif',
      'host',
    ],
    packages: ['commander'],
    usesNode: true,
  },
  bin: { folders: ['cli'], packages: [], usesNode: true },
};

/** Packages that some folder may not import; each such folder's tsconfig.json must forbid it. */
export const GUARDED_PACKAGES: readonly string[] = [
  'koffi',
  'commander',
  'pino',
  'prom-client',
  'xenstore-client',
  'xenstore-client/wire',
  'nbd-server-ts',
  'nbd-server-ts/protocol',
];

/** These two are npm packages of their own; their sources lie one folder deeper. */
export const PACKAGE_FOLDERS: readonly string[] = ['xenstore-client', 'nbd-server-ts'];
