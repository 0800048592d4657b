// Whole disks in and out, by the tools that people copy disks with. Every byte is compared with the
// file behind the server.
import assert from 'node:assert/strict';
import { assertSameFiles, createSparseImage } from '../support/disk-image.ts';
import { mustRun, runProgram } from '../support/program.ts';
import type { InteropCase } from './runner.ts';

const SIZE_BYTES = 96 * 1024 * 1024 + 512;

function nbdcopyCase(connectionCount: number): InteropCase {
  const flags = [`--connections=${connectionCount}`, '--requests=16'];
  return {
    name: `nbdcopy in and out with ${connectionCount} connection${connectionCount > 1 ? 's' : ''}`,
    needs: ['nbdcopy'],
    async run(context) {
      const source = context.image(SIZE_BYTES, 'source.raw');
      const served = context.path('served.raw');
      createSparseImage(served, SIZE_BYTES);
      const server = await context.serve(served);
      await mustRun('nbdcopy', [...flags, '--flush', source, server.uri]);
      assertSameFiles(served, source, 'nbdcopy into the export');
      const copy = context.path('copy.raw');
      await mustRun('nbdcopy', [...flags, server.uri, copy]);
      assertSameFiles(copy, source, 'nbdcopy out of the export');
    },
  };
}

export const copyCases: readonly InteropCase[] = [
  nbdcopyCase(1),
  nbdcopyCase(4),
  {
    name: 'nbdcopy from one export into another',
    needs: ['nbdcopy'],
    async run(context) {
      const source = context.image(SIZE_BYTES, 'source.raw');
      const target = context.path('target.raw');
      createSparseImage(target, SIZE_BYTES);
      const from = await context.serve(source, { isReadOnly: true });
      const to = await context.serve(target);
      await mustRun('nbdcopy', ['--flush', from.uri, to.uri]);
      assertSameFiles(target, source, 'nbdcopy from export to export');
    },
  },
  {
    name: 'nbdcopy of a sparse image writes zeroes that read back as zeroes',
    needs: ['nbdcopy'],
    async run(context) {
      const source = context.path('source.raw');
      createSparseImage(source, SIZE_BYTES);
      const served = context.image(SIZE_BYTES, 'served.raw');
      const server = await context.serve(served);
      await mustRun('nbdcopy', ['--flush', source, server.uri]);
      assertSameFiles(served, source, 'nbdcopy of zeroes');
    },
  },
  {
    name: 'qemu-img compare says identical, and sees one changed byte',
    needs: ['qemu-img', 'qemu-io'],
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const other = context.image(SIZE_BYTES, 'other.raw');
      const server = await context.serve(image);
      const args = ['compare', '-f', 'raw', '-F', 'raw', other, server.uri];
      const same = await mustRun('qemu-img', args);
      assert.match(same.stdout, /Images are identical/);
      await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 50000001 1', other]);
      const different = await runProgram('qemu-img', args);
      assert.equal(different.status, 1, `qemu-img compare: ${different.stdout}`);
    },
  },
  {
    name: 'qemu-img convert in and out, also through qcow2',
    needs: ['qemu-img'],
    async run(context) {
      const source = context.image(SIZE_BYTES, 'source.raw');
      const served = context.path('served.raw');
      createSparseImage(served, SIZE_BYTES);
      const server = await context.serve(served);
      await mustRun('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, server.uri]);
      assertSameFiles(served, source, 'qemu-img convert into the export');
      const qcow2 = context.path('copy.qcow2');
      await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', server.uri, qcow2]);
      const copy = context.path('copy.raw');
      await mustRun('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', qcow2, copy]);
      assertSameFiles(copy, source, 'qemu-img convert out of the export');
    },
  },
  {
    name: 'qemu-img info and map',
    needs: ['qemu-img'],
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      const info = await mustRun('qemu-img', ['info', '--output=json', '-f', 'raw', server.uri]);
      assert.equal(JSON.parse(info.stdout)['virtual-size'], SIZE_BYTES);
      const map = await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', server.uri]);
      const extents = JSON.parse(map.stdout) as { length: number; data: boolean }[];
      const dataBytes = extents.filter((extent) => extent.data).map((extent) => extent.length);
      assert.equal(
        dataBytes.reduce((sum, bytes) => sum + bytes, 0),
        SIZE_BYTES,
        'all of a full disk is data',
      );
    },
  },
  {
    name: "nbdkit's nbd plugin as the client in the middle",
    needs: ['nbdkit', 'nbdcopy'],
    async run(context) {
      const source = context.image(SIZE_BYTES, 'source.raw');
      const served = context.path('served.raw');
      createSparseImage(served, SIZE_BYTES);
      await context.serve(served);
      const nbdkit = (command: string): Promise<unknown> =>
        mustRun('nbdkit', [
          '-U',
          '-',
          'nbd',
          `socket=${context.path('nbd0.sock')}`,
          '--run',
          command,
        ]);
      await nbdkit(`nbdcopy --flush "${source}" "$uri"`);
      assertSameFiles(served, source, 'through nbdkit into the export');
      const copy = context.path('copy.raw');
      await nbdkit(`nbdcopy "$uri" "${copy}"`);
      assertSameFiles(copy, source, 'through nbdkit out of the export');
    },
  },
];
