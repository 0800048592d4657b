/**
 * Goal: the ring consumer judges requests as Linux's blkback does. Method: requests typed byte by
 * byte on a ring in plain memory; the engine is stepped by hand over a disk in memory that notes
 * what it was asked. The table of bad requests is that of a run against the real thing.
 */

import t from 'tap';
import { BackRing, blkifLayout, createRingArea } from '../../src/blkif/index.ts';
import type { GrantedPages } from '../../src/host/index.ts';
import {
  BlkbackEngine,
  type EngineDisk,
  type EngineFeatures,
} from '../../src/sim/blkback-engine.ts';
import { GrantMap } from '../../src/sim/grant-map.ts';
import { GrantTable } from '../../src/sim/grants.ts';
import type { IovecList } from '../../src/sim/iovec-list.ts';
import { bytesOf, HandRing, type HandSegment } from './hand-front.ts';

const SECTORS = 2048;

/** A disk in memory that fails when told to. */
class MemoryDisk implements EngineDisk {
  sectors = SECTORS;
  isFailing = false;
  readonly content = new Uint8Array(SECTORS * 512);
  readonly calls: string[] = [];
  readonly #map: GrantMap;

  constructor(map: GrantMap) {
    this.#map = map;
    for (let index = 0; index < this.content.length; index++) this.content[index] = index >>> 9;
  }

  #each(iovecs: IovecList, take: (bytes: Uint8Array, at: number) => void): void {
    let at = 0;
    for (let index = 0; index < iovecs.count; index++) {
      const offset = iovecs.addressAt(index) - this.#map.pagesAddress;
      const length = iovecs.lengthAt(index);
      take(new Uint8Array(this.#map.view.buffer, offset, length), at);
      at += length;
    }
  }

  read(into: IovecList, offsetBytes: number): boolean {
    this.calls.push(`read ${offsetBytes} +${into.lengthBytes} in ${into.count}`);
    this.#each(into, (bytes, at) => {
      bytes.set(this.content.subarray(offsetBytes + at, offsetBytes + at + bytes.length));
    });
    return !this.isFailing;
  }

  write(from: IovecList, offsetBytes: number): boolean {
    this.calls.push(`write ${offsetBytes} +${from.lengthBytes} in ${from.count}`);
    this.#each(from, (bytes, at) => this.content.set(bytes, offsetBytes + at));
    return !this.isFailing;
  }

  flush(): boolean {
    this.calls.push('flush');
    return !this.isFailing;
  }

  discard(offsetBytes: number, lengthBytes: number): boolean {
    this.calls.push(`discard ${offsetBytes} +${lengthBytes}`);
    return !this.isFailing;
  }
}

const FEATURES: EngineFeatures = {
  sectorSize: 512,
  readOnly: false,
  indirect: 256,
  flush: true,
  barrier: true,
  discard: true,
  persistent: false,
};

class Bench {
  readonly grants = new GrantTable(1024);
  readonly map = new GrantMap(this.grants.placement, 0);
  readonly pages: GrantedPages = this.grants.grant(0, 16, 'read-write');
  readonly ring = new HandRing(new ArrayBuffer(4096));
  readonly disk = new MemoryDisk(this.map);
  readonly engine: BlkbackEngine;

  constructor(features: Partial<EngineFeatures> = {}) {
    const area = createRingArea({
      buffer: this.ring.view.buffer,
      offsetBytes: 0,
      ringPageCount: 1,
      abi: 'x86_64-abi',
    });
    this.engine = new BlkbackEngine({
      ring: BackRing.attach(area),
      layout: blkifLayout('x86_64-abi'),
      grants: this.map,
      disk: this.disk,
      features: { ...FEATURES, ...features },
    });
  }

  gref(page: number): number {
    return this.pages.grefs[page] ?? 0;
  }

  segment(page: number, first = 0, last = 7): HandSegment {
    return { gref: this.gref(page), first, last };
  }

  /** Serves what is on the ring; gives the responses. */
  serve(): { id: number; operation: number; status: number }[] {
    this.ring.push();
    this.engine.run(Number.POSITIVE_INFINITY);
    this.engine.publish();
    return this.ring.take();
  }

  /** One direct request; gives its status. */
  direct(operation: number, sector: number, segments: readonly HandSegment[]): number {
    this.ring.putDirect(operation, 1, sector, segments);
    return this.serve()[0]?.status ?? 99;
  }

  close(): void {
    this.engine.releaseKept();
    this.grants.close();
  }
}

void t.test('data goes where it should, neighbours in one piece', async (t) => {
  const bench = new Bench();
  t.equal(
    bench.direct(0, 3, [bench.segment(0, 2, 7), bench.segment(1), bench.segment(3, 0, 0)]),
    0,
  );
  t.same(bench.disk.calls, ['read 1536 +7680 in 2'], 'pages 0 and 1 touch, page 3 is apart');
  const bytes = bytesOf(bench.pages);
  t.equal(bytes[1023], 0);
  t.equal(bytes[1024], 3);
  t.equal(bytes[4096], 9);
  t.equal(bytes[3 * 4096], 17);
  t.equal(bytes[3 * 4096 + 512], 0);
  bytes.fill(0xcc, 5 * 4096, 6 * 4096);
  t.equal(bench.direct(1, 100, [bench.segment(5, 1, 2)]), 0);
  t.equal(bench.disk.content[100 * 512 - 1], 99);
  t.ok(bench.disk.content.subarray(100 * 512, 102 * 512).every((byte) => byte === 0xcc));
  t.equal(bench.disk.content[102 * 512], 102);
  t.equal(bench.grants.use().mappings, 0);
  t.equal(bench.engine.stats.readBytes, 7680);
  t.equal(bench.engine.stats.writtenBytes, 1024);
  bench.close();
});

void t.test('bad requests are answered with an error and touch nothing', async (t) => {
  const bench = new Bench();
  const readOnlyPage = bench.grants.grant(0, 1, 'read-only').grefs[0] ?? 0;
  const foreignPage = bench.grants.grant(3, 1, 'read-write').grefs[0] ?? 0;
  const page = (gref: number): HandSegment => ({ gref, first: 0, last: 7 });
  const rows: [what: string, operation: number, sector: number, segments: HandSegment[]][] = [
    ['past the end', 0, SECTORS - 7, [bench.segment(0)]],
    ['far past the end', 1, 2 ** 40, [bench.segment(0)]],
    ['a sector beyond 2^53', 0, 2 ** 60, [bench.segment(0)]],
    ['a reference that is none', 0, 0, [page(7777777)]],
    ['a reference for another domain', 0, 0, [page(foreignPage)]],
    ['reading into a read-only page', 0, 0, [page(readOnlyPage)]],
    ['the second of two pages bad', 0, 0, [bench.segment(0), page(0)]],
    ['first sector after the last', 0, 0, [bench.segment(0, 5, 4)]],
    ['last sector 8', 0, 0, [bench.segment(0, 0, 8)]],
    ['last sector 255', 1, 0, [bench.segment(0, 0, 255)]],
    ['a read of nothing', 0, 0, []],
    ['a write of nothing', 1, 0, []],
  ];
  for (const [what, operation, sector, segments] of rows) {
    t.equal(bench.direct(operation, sector, segments), -1, what);
  }
  t.equal(bench.direct(1, 0, [page(readOnlyPage)]), 0, 'writing from a read-only page is fine');
  bench.disk.calls.length = 0;
  // Twelve segments do not fit a direct request: nr_segments says 12.
  bench.ring.put(0, 12, 4, 0);
  t.equal(bench.serve()[0]?.status, -1, '12 segments');
  t.equal(bench.direct(0, SECTORS - 8, [bench.segment(0)]), 0, 'up to the end is fine');
  t.same(bench.disk.calls, [`read ${(SECTORS - 8) * 512} +4096 in 1`]);
  t.equal(bench.grants.use().mappings, 0, 'nothing stays mapped');
  bench.close();
});

void t.test('unknown operations', async (t) => {
  const bench = new Bench();
  for (const operation of [4, 7, 200]) {
    bench.ring.put(operation, 0, 5, 0);
    t.same(bench.serve(), [{ id: 5, operation, status: -2 }], `operation ${operation}`);
  }
  bench.close();
});

void t.test('flush and barrier', async (t) => {
  const bench = new Bench();
  t.equal(bench.direct(3, 0, []), 0);
  t.equal(bench.direct(2, 0, []), 0, 'an empty barrier');
  t.equal(bench.direct(2, 8, [bench.segment(0)]), 0);
  t.same(bench.disk.calls, ['flush', 'flush', 'flush', 'write 4096 +4096 in 1']);
  t.equal(bench.direct(2, SECTORS, [bench.segment(0)]), -1);
  bench.disk.isFailing = true;
  t.equal(bench.direct(3, 0, []), -1, 'a flush that fails is told');
  bench.close();
  const plain = new Bench({ flush: false, barrier: false, discard: false });
  t.equal(plain.direct(3, 0, []), -2);
  t.equal(plain.direct(2, 0, []), -2);
  t.equal(plain.direct(5, 0, []), -2);
  t.same(plain.disk.calls, []);
  plain.close();
});

void t.test('discard', async (t) => {
  const bench = new Bench({ sectorSize: 4096 });
  const discard = (sector: number, count: number): number => {
    const at = bench.ring.put(5, 0, 6, sector);
    bench.ring.view.setUint32(at + 24, count, true);
    return bench.serve()[0]?.status ?? 99;
  };
  t.equal(discard(8, 16), 0);
  t.same(bench.disk.calls, ['discard 4096 +8192']);
  t.equal(discard(8, 0), -1, 'of nothing');
  t.equal(discard(4, 8), -1, 'not aligned to the sector size');
  t.equal(discard(8, 4), -1);
  t.equal(discard(SECTORS - 8, 16), -1, 'past the end');
  bench.close();
});

void t.test('alignment to a sector size of 4096', async (t) => {
  const bench = new Bench({ sectorSize: 4096 });
  t.equal(bench.direct(0, 8, [bench.segment(0)]), 0);
  t.equal(bench.direct(0, 4, [bench.segment(0)]), -1, 'the first sector');
  t.equal(bench.direct(0, 8, [bench.segment(0, 0, 3)]), -1, 'the length of a segment');
  t.equal(
    bench.direct(0, 8, [bench.segment(0, 0, 3), bench.segment(1, 0, 3)]),
    -1,
    'each segment, not the sum',
  );
  bench.close();
});

void t.test('a read-only disk', async (t) => {
  const bench = new Bench({ readOnly: true, discard: false });
  t.equal(bench.direct(0, 0, [bench.segment(0)]), 0);
  t.equal(bench.direct(1, 0, [bench.segment(0)]), -1);
  t.equal(bench.direct(2, 0, [bench.segment(0)]), -1);
  t.equal(bench.direct(3, 0, []), -1, 'a flush is a kind of write');
  t.equal(bench.direct(5, 0, []), -1);
  bench.close();
});

void t.test('indirect requests', async (t) => {
  const bench = new Bench();
  const table = bench.pages;
  const segments = new DataView(bytesOf(table).buffer, 0, 4096);
  const data = bench.grants.grant(0, 300, 'read-write');
  const put = (
    inner: number,
    count: number,
    sector: number,
    gref = table.grefs[0] ?? 0,
  ): number => {
    const at = bench.ring.put(6, inner, 9, sector);
    bench.ring.view.setUint16(at + 2, count, true);
    bench.ring.view.setUint32(at + 28, gref, true);
    return bench.serve()[0]?.status ?? 99;
  };
  for (let index = 0; index < 300; index++) {
    segments.setUint32(index * 8, data.grefs[index] ?? 0, true);
    segments.setUint8(index * 8 + 4, 0);
    segments.setUint8(index * 8 + 5, 7);
  }
  t.equal(put(0, 256, 0), 0);
  t.same(bench.disk.calls, ['read 0 +1048576 in 1']);
  t.equal(bytesOf(data)[255 * 4096 + 512], (255 * 8 + 1) & 0xff);
  t.equal(put(0, 257, 0), -1, 'one more than offered');
  t.equal(put(0, 0, 0), -1, 'none');
  t.equal(put(0, 65535, 0), -1);
  t.equal(put(0, 1, 0, 12345678), -1, 'the page of segments is not granted');
  t.equal(put(3, 1, 0), -1, 'only reads and writes can be indirect');
  t.equal(put(6, 1, 0), -1);
  segments.setUint8(8 + 5, 8);
  t.equal(put(0, 2, 0), -1, 'a bad segment in the page');
  segments.setUint8(8 + 5, 7);
  t.equal(put(0, 2, SECTORS - 8), -1);
  const at = bench.ring.put(6, 1, 77, 0);
  bench.ring.view.setUint16(at + 2, 1, true);
  bench.ring.view.setUint32(at + 28, table.grefs[0] ?? 0, true);
  t.same(bench.serve(), [{ id: 77, operation: 1, status: 0 }], 'the inner operation is answered');
  t.equal(bench.grants.use().mappings, 0);
  bench.close();
});

void t.test('an indirect request larger than one system call takes', async (t) => {
  const bench = new Bench({ indirect: 4096 });
  const segments = new DataView(bytesOf(bench.pages).buffer, 0, 3 * 4096);
  // Single sectors in every other place of pages, so that no two can be joined.
  for (let index = 0; index < 1300; index++) {
    segments.setUint32(index * 8, bench.gref(4 + (index % 12)), true);
    segments.setUint8(index * 8 + 4, index % 7);
    segments.setUint8(index * 8 + 5, index % 7);
  }
  const at = bench.ring.put(6, 1, 3, 0);
  bench.ring.view.setUint16(at + 2, 1300, true);
  for (let page = 0; page < 3; page++) {
    bench.ring.view.setUint32(at + 28 + page * 4, bench.gref(page), true);
  }
  t.equal(bench.serve()[0]?.status, 0);
  t.same(bench.disk.calls, ['write 0 +524288 in 1024', 'write 524288 +141312 in 276']);
  bench.close();
});

void t.test('persistent grants stay mapped until the end', async (t) => {
  const bench = new Bench({ persistent: true });
  t.equal(bench.direct(0, 0, [bench.segment(0), bench.segment(1)]), 0);
  t.equal(bench.direct(1, 0, [bench.segment(1), bench.segment(2)]), 0);
  t.equal(bench.engine.keptPages, 3);
  t.equal(bench.grants.use().mappings, 3);
  const readOnlyPage = bench.grants.grant(0, 1, 'read-only').grefs[0] ?? 0;
  t.equal(bench.direct(1, 0, [{ gref: readOnlyPage, first: 0, last: 7 }]), -1, 'all are writable');
  bench.engine.releaseKept();
  t.equal(bench.grants.use().mappings, 0);
  bench.close();
});

void t.test('ids are given back as they came', async (t) => {
  const bench = new Bench();
  const at = bench.ring.put(3, 0, 0xfffffffe, 0);
  bench.ring.view.setUint32(at + 12, 0xdeadbeef, true);
  bench.ring.push();
  bench.engine.run(1);
  bench.engine.publish();
  t.equal(bench.ring.view.getUint32(64, true), 0xfffffffe);
  t.equal(bench.ring.view.getUint32(68, true), 0xdeadbeef);
  bench.close();
});

void t.test('a ring whose producer cannot be true is served no more', async (t) => {
  for (const producer of [33, 0x80000000, 0xffffffff]) {
    const bench = new Bench();
    Atomics.store(bench.ring.words, 0, producer);
    t.equal(bench.engine.run(Number.POSITIVE_INFINITY), 0, `producer ${producer}`);
    t.ok(bench.engine.isBroken);
    t.equal(bench.engine.finalCheck(), false, 'and it sleeps');
    Atomics.store(bench.ring.words, 0, 1);
    t.equal(bench.engine.run(Number.POSITIVE_INFINITY), 0, 'for ever');
    bench.close();
  }
});

void t.test('a full ring, many times round', async (t) => {
  const bench = new Bench();
  let served = 0;
  for (let round = 0; round < 40; round++) {
    const count = 1 + ((round * 7) % 32);
    for (let index = 0; index < count; index++) {
      bench.ring.putDirect(0, index, index * 8, [bench.segment(index % 16)]);
    }
    const responses = bench.serve();
    t.same(
      responses.map(({ id }) => id),
      Array.from({ length: count }, (_, index) => index),
    );
    served += count;
  }
  t.equal(bench.engine.stats.requests, served);
  t.equal(bench.engine.stats.errors, 0);
  bench.close();
});
