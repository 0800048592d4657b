/**
 * Goal: each request and response has exactly the bytes of the block interface, in each ABI.
 * Method: hex typed from the struct tables of xen/include/public/io/blkif.h, written over a slot
 * full of 0xff so that a pad byte left alone is seen; decoders read the same hex.
 */

import t from 'tap';
import {
  BLKIF_DISCARD_SECURE,
  BlkifAbi,
  BlkifOp,
  BlkifStatus,
  blkifLayout,
  blkifOpName,
  blkifStatusName,
  createRequest,
  createResponse,
  decodeRequest,
  decodeResponse,
  decodeSegments,
  encodeDirectRequest,
  encodeDiscard,
  encodeEmptyBarrier,
  encodeFlush,
  encodeIndirectGref,
  encodeIndirectRequest,
  encodeResponse,
  encodeSegment,
  hostAbi,
  INVALID_U64,
  isBlkifStatus,
  parseBlkifAbi,
  segmentOffset,
  slotCount,
} from '../../src/blkif/index.ts';

/** Leading bytes of the slot under test, so that a wrong base offset is seen. */
const AT = 16;

function hex(...parts: string[]): string {
  return parts.join('').replaceAll(' ', '');
}

function slotOf(bytes: string): DataView<ArrayBuffer> {
  const slot = Buffer.alloc(256, 0xff);
  Buffer.from(bytes, 'hex').copy(slot, AT);
  return new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
}

function bytesOf(view: DataView<ArrayBuffer>, lengthBytes: number): string {
  return Buffer.from(view.buffer, view.byteOffset + AT, lengthBytes).toString('hex');
}

/** No byte before or after the written part may have changed. */
function isCleanAround(view: DataView<ArrayBuffer>, lengthBytes: number): boolean {
  const all = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  return [...all].every(
    (byte, index) => (index >= AT && index < AT + lengthBytes) || byte === 0xff,
  );
}

const HANDLE = 0xca00;
const ID = 5;
const SECTOR = 0x12_3456_789a;

const DIRECT_TAIL = hex(
  '44332211 00 07 0000', // segment 0: gref, first_sect, last_sect, pad
  '0d0c0b0a 02 05 0000', // segment 1
);

const ROWS = [
  {
    abis: [BlkifAbi.X86_64, BlkifAbi.ARM],
    direct: hex('01 02 00ca 00000000', '0500000000000000', '9a78563412000000', DIRECT_TAIL),
    flush: hex('03 00 00ca 00000000', '0500000000000000', '0000000000000000'),
    barrier: hex('02 00 00ca 00000000', '0500000000000000', '0000000000000000'),
    discard: hex(
      '05 01 00ca 00000000',
      '0500000000000000',
      '9a78563412000000',
      '0100000001000000', // nr_sectors 0x1_0000_0001
    ),
    indirect: hex(
      '06 00 0c02 00000000', // op, indirect_op read, nr_segments 524, pad
      '0500000000000000',
      '9a78563412000000',
      '00ca 0000', // handle, pad
      '01000000 02000080', // two indirect_grefs
      '00000000 00000000 00000000 00000000 00000000 00000000',
      '00000000', // pad to 64
    ),
    response: hex('0500000000000000', '01 00 feff', '00000000'),
    slotBytes: 112,
    responseBytes: 16,
  },
  {
    abis: [BlkifAbi.X86_32],
    direct: hex('01 02 00ca', '0500000000000000', '9a78563412000000', DIRECT_TAIL),
    flush: hex('03 00 00ca', '0500000000000000', '0000000000000000'),
    barrier: hex('02 00 00ca', '0500000000000000', '0000000000000000'),
    discard: hex('05 01 00ca', '0500000000000000', '9a78563412000000', '0100000001000000'),
    indirect: hex(
      '06 00 0c02',
      '0500000000000000',
      '9a78563412000000',
      '00ca 0000',
      '01000000 02000080',
      '00000000 00000000 00000000 00000000 00000000 00000000',
      '0000000000000000', // pad to 64
    ),
    response: hex('0500000000000000', '01 00 feff'),
    slotBytes: 108,
    responseBytes: 12,
  },
];

for (const row of ROWS) {
  for (const abi of row.abis) {
    const layout = blkifLayout(abi);

    void t.test(`${abi}: sizes`, (t) => {
      t.equal(layout.abi, abi);
      t.equal(layout.slotBytes, row.slotBytes);
      t.equal(layout.responseBytes, row.responseBytes);
      t.equal(layout.segments + 11 * 8, row.slotBytes, 'eleven segments end the slot');
      t.end();
    });

    void t.test(`${abi}: encoders give the golden bytes and touch nothing else`, (t) => {
      const check = (name: string, golden: string, encode: (view: DataView) => void): void => {
        const view = slotOf('');
        encode(view);
        const lengthBytes = golden.length / 2;
        t.equal(bytesOf(view, lengthBytes), golden, name);
        t.ok(isCleanAround(view, lengthBytes), `${name} stays within its bytes`);
      };
      check('direct', row.direct, (view) => {
        encodeDirectRequest(view, AT, layout, BlkifOp.BLKIF_OP_WRITE, HANDLE, ID, SECTOR, 2);
        encodeSegment(view, segmentOffset(AT, layout, 0), 0x11223344, 0, 7);
        encodeSegment(view, segmentOffset(AT, layout, 1), 0x0a0b0c0d, 2, 5);
      });
      check('flush', row.flush, (view) => encodeFlush(view, AT, layout, HANDLE, ID));
      check('barrier', row.barrier, (view) => encodeEmptyBarrier(view, AT, layout, HANDLE, ID));
      check('discard', row.discard, (view) => {
        encodeDiscard(view, AT, layout, BLKIF_DISCARD_SECURE, HANDLE, ID, SECTOR, 0x1_0000_0001);
      });
      check('indirect', row.indirect, (view) => {
        encodeIndirectRequest(view, AT, layout, BlkifOp.BLKIF_OP_READ, HANDLE, ID, SECTOR, 524);
        encodeIndirectGref(view, AT, layout, 0, 1);
        encodeIndirectGref(view, AT, layout, 1, 0x80000002);
      });
      check('response', row.response, (view) => {
        encodeResponse(view, AT, layout, ID, BlkifOp.BLKIF_OP_WRITE, -2);
      });
      t.end();
    });

    void t.test(`${abi}: decoders read the golden bytes`, (t) => {
      const request = createRequest();

      decodeRequest(slotOf(row.direct), AT, layout, request);
      t.match(request, {
        operation: BlkifOp.BLKIF_OP_WRITE,
        id: ID,
        handle: HANDLE,
        firstSector: SECTOR,
        segmentCount: 2,
      });
      t.same([...request.segmentGrefs.subarray(0, 2)], [0x11223344, 0x0a0b0c0d]);
      t.same([...request.segmentFirstSectors.subarray(0, 2)], [0, 2]);
      t.same([...request.segmentLastSectors.subarray(0, 2)], [7, 5]);

      decodeRequest(slotOf(row.flush), AT, layout, request);
      t.match(request, { operation: 3, id: ID, handle: HANDLE, firstSector: 0, segmentCount: 0 });

      decodeRequest(slotOf(row.discard), AT, layout, request);
      t.match(request, {
        operation: BlkifOp.BLKIF_OP_DISCARD,
        id: ID,
        handle: HANDLE,
        firstSector: SECTOR,
        discardFlag: BLKIF_DISCARD_SECURE,
        discardSectorCount: 0x1_0000_0001,
        segmentCount: 0,
      });

      decodeRequest(slotOf(row.indirect), AT, layout, request);
      t.match(request, {
        operation: BlkifOp.BLKIF_OP_INDIRECT,
        indirectOperation: BlkifOp.BLKIF_OP_READ,
        id: ID,
        handle: HANDLE,
        firstSector: SECTOR,
        segmentCount: 524,
        discardFlag: 0,
        discardSectorCount: 0,
      });
      t.same([...request.indirectGrefs], [1, 0x80000002, 0, 0, 0, 0, 0, 0]);

      const response = createResponse();
      decodeResponse(slotOf(row.response), AT, response);
      t.same(response, { id: ID, operation: BlkifOp.BLKIF_OP_WRITE, status: -2 });
      t.end();
    });

    void t.test(
      `${abi}: a count above eleven is told, but only eleven segments are copied`,
      (t) => {
        const view = slotOf(row.direct);
        view.setUint8(AT + 1, 255);
        const request = createRequest();
        decodeRequest(view, AT, layout, request);
        t.equal(request.segmentCount, 255);
        t.equal(request.segmentGrefs.length, 11);
        t.end();
      },
    );

    void t.test(`${abi}: ids and sectors are exact to 2^53-1 and invalid beyond`, (t) => {
      const request = createRequest();
      const view = slotOf(row.direct);
      const big = Number.MAX_SAFE_INTEGER;
      encodeDirectRequest(view, AT, layout, BlkifOp.BLKIF_OP_READ, 0, big, big, 1);
      decodeRequest(view, AT, layout, request);
      t.equal(request.id, big);
      t.equal(request.firstSector, big);
      for (const beyond of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
        view.setBigUint64(AT + layout.id, beyond, true);
        view.setBigUint64(AT + layout.sectorNumber, beyond, true);
        decodeRequest(view, AT, layout, request);
        t.equal(request.id, INVALID_U64, `id ${beyond}`);
        t.equal(request.firstSector, INVALID_U64, `sector ${beyond}`);
        const response = createResponse();
        view.setBigUint64(AT, beyond, true);
        decodeResponse(view, AT, response);
        t.equal(response.id, INVALID_U64, `response id ${beyond}`);
      }
      t.end();
    });
  }
}

void t.test('segments of an indirect page are read into place', (t) => {
  const page = slotOf(hex('01000000 00 07 0000', 'ffffffff 07 ff abcd'));
  const grefs = new Uint32Array(4);
  const first = new Uint8Array(4);
  const last = new Uint8Array(4);
  decodeSegments(page, AT, 2, grefs, first, last, 1);
  t.same([...grefs], [0, 1, 0xffffffff, 0]);
  t.same([...first], [0, 0, 7, 0]);
  t.same([...last], [0, 7, 255, 0]);
  t.end();
});

void t.test('slots of a ring, by pages', (t) => {
  const counts = [32, 64, 128, 256, 512];
  for (const [order, slots] of counts.entries()) {
    for (const abi of Object.values(BlkifAbi)) {
      t.equal(slotCount(2 ** order, abi), slots, `order ${order}, ${abi}`);
    }
  }
  t.end();
});

void t.test('the ABI of an architecture and of a protocol key', (t) => {
  t.equal(hostAbi('x64'), 'x86_64-abi');
  t.equal(hostAbi('arm64'), 'arm-abi');
  t.equal(hostAbi('arm'), 'arm-abi');
  t.equal(hostAbi('ia32'), 'x86_32-abi');
  t.throws(() => hostAbi('riscv64'), /not defined for the architecture riscv64/);
  t.equal(parseBlkifAbi('arm-abi'), BlkifAbi.ARM);
  t.equal(parseBlkifAbi('X86_64-ABI'), undefined);
  t.equal(parseBlkifAbi(''), undefined);
  t.end();
});

void t.test('names and known statuses', (t) => {
  t.equal(blkifOpName(3), 'BLKIF_OP_FLUSH_DISKCACHE');
  t.equal(blkifOpName(99), 'operation 99');
  t.equal(blkifStatusName(0), 'BLKIF_RSP_OKAY');
  t.equal(blkifStatusName(-1), 'BLKIF_RSP_ERROR');
  t.equal(blkifStatusName(-2), 'BLKIF_RSP_EOPNOTSUPP');
  t.equal(blkifStatusName(7), 'status 7');
  t.same([-3, -2, -1, 0, 1].map(isBlkifStatus), [false, true, true, true, false]);
  t.equal(BlkifStatus.BLKIF_RSP_ERROR, -1);
  t.end();
});
