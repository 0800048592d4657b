// The rows of the benchmark: what is asked of each server.

/** A load that fio makes. */
export interface FioRow {
  readonly kind: 'fio';
  readonly name: string;
  readonly mode: 'randread' | 'randwrite' | 'read' | 'write';
  readonly blockBytes: number;
  readonly queueDepth: number;
  readonly connectionCount: number;
}

/** nbdcopy of the whole disk to nowhere. */
export interface CopyRow {
  readonly kind: 'copy';
  readonly name: string;
  readonly connectionCount: number;
}

export type Row = FioRow | CopyRow;

const KIB = 1024;

function randomRow(mode: 'randread' | 'randwrite', depth: number, connections: number): FioRow {
  return {
    kind: 'fio',
    name: `4K ${mode} QD${depth} x${connections}`,
    mode,
    blockBytes: 4 * KIB,
    queueDepth: depth,
    connectionCount: connections,
  };
}

function sequentialRow(mode: 'read' | 'write', label: string, blockBytes: number): FioRow {
  const name = `${label} seq ${mode} QD4`;
  return { kind: 'fio', name, mode, blockBytes, queueDepth: 4, connectionCount: 1 };
}

function copyRow(connectionCount: number): CopyRow {
  return { kind: 'copy', name: `nbdcopy x${connectionCount}`, connectionCount };
}

/** In the order of reports; they are measured in random order. */
export const ROWS: readonly Row[] = [
  ...[1, 4].flatMap((connections) =>
    [1, 16, 64].flatMap((depth) => [
      randomRow('randread', depth, connections),
      randomRow('randwrite', depth, connections),
    ]),
  ),
  sequentialRow('read', '256K', 256 * KIB),
  sequentialRow('write', '256K', 256 * KIB),
  sequentialRow('read', '1M', 1024 * KIB),
  sequentialRow('write', '1M', 1024 * KIB),
  copyRow(1),
  copyRow(4),
];

/** Small requests at depth: what a ring and a lane are for. */
export function isSmallAndDeep(row: Row): boolean {
  return row.kind === 'fio' && row.blockBytes === 4 * KIB && row.queueDepth >= 16;
}

/** Rows whose figure is bytes a second rather than requests a second. */
export function isThroughputRow(row: Row): boolean {
  return row.kind === 'copy' || row.blockBytes > 4 * KIB;
}
