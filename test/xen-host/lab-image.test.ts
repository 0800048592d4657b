/**
 * Goal: the lab's first file system is what Linux expects.
 * Method: bytes typed from buffer-format.rst of Linux; an archive read back by cpio(1) where there
 * is one; module lists from text.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { CpioArchive } from '../xen/lab/cpio.ts';
import { collectModules, formatModulesDep } from '../xen/lab/kernel-modules.ts';

void t.test('the bytes of a small archive', (t) => {
  const archive = new CpioArchive();
  archive.addFile('/a', 'hello', 0o644);
  const text = Buffer.from(archive.finish()).toString('latin1');
  const zero = '00000000';
  // magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize
  // check
  const fileHeader = `070701${'00000001'}${'000081a4'}${zero}${zero}${'00000001'}${zero}${'00000005'}`;
  const endHeader = `070701${zero}${zero}${zero}${zero}${'00000001'}${zero}${zero}`;
  const noDevices = zero.repeat(4);
  t.equal(
    text,
    `${fileHeader}${noDevices}${'00000002'}${zero}a\0hello\0\0\0` +
      `${endHeader}${noDevices}${'0000000b'}${zero}TRAILER!!!\0\0\0\0`,
  );
  t.equal(text.length % 4, 0, 'archives can be concatenated');
  t.end();
});

void t.test('parents come first, and nothing twice', (t) => {
  const archive = new CpioArchive();
  archive.addFile('/usr/bin/x', '', 0o755);
  archive.addFile('/usr/bin/y', '', 0o755);
  archive.addDirectory('/usr');
  t.ok(archive.has('/usr/bin'));
  t.notOk(archive.has('/usr/lib'));
  t.throws(() => archive.addFile('/usr/bin/x', '', 0o755), /twice/);
  const names = Buffer.from(archive.finish())
    .toString('latin1')
    .match(/(usr[a-z/]*)\0/g);
  t.same(names, ['usr\0', 'usr/bin\0', 'usr/bin/x\0', 'usr/bin/y\0']);
  t.end();
});

void t.test('cpio(1) unpacks it', (t) => {
  if (spawnSync('cpio', ['--version']).error !== undefined) {
    t.pass('skipped: cpio is not installed');
    t.end();
    return;
  }
  const archive = new CpioArchive();
  const content = Buffer.from(Array.from({ length: 1000 }, (_, index) => index & 0xff));
  archive.addFile('/folder/file', content, 0o640);
  archive.addSymlink('/link', 'folder/file');
  const folder = mkdtempSync(join(tmpdir(), 'cpio-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  execFileSync('cpio', ['-i', '-d', '--quiet'], { cwd: folder, input: archive.finish() });
  t.same(readFileSync(join(folder, 'link')), content);
  t.equal(statSync(join(folder, 'folder/file')).mode & 0o777, 0o640);
  t.end();
});

void t.test('modules come with what they depend on', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'modules-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const modules = {
    ext4: 'jbd2,mbcache',
    jbd2: '',
    mbcache: 'crc16',
    crc16: '',
    unused: '',
    loopback: 'vsock,transport',
    transport: 'vsock',
    vsock: '',
  };
  mkdirSync(join(folder, 'kernel/fs'), { recursive: true });
  for (const [name, depends] of Object.entries(modules)) {
    const content = `\x7fELF...\0license=GPL\0depends=${depends}\0name=${name}\0`;
    writeFileSync(join(folder, `kernel/fs/${name}.ko`), content);
  }
  const dep = formatModulesDep(collectModules(folder, ['ext4']));
  t.match(dep, 'kernel/fs/ext4.ko: kernel/fs/jbd2.ko kernel/fs/mbcache.ko kernel/fs/crc16.ko\n');
  t.match(dep, 'kernel/fs/crc16.ko: \n');
  t.notMatch(dep, 'unused');
  const diamond = formatModulesDep(collectModules(folder, ['loopback']));
  const behind = 'kernel/fs/transport.ko kernel/fs/vsock.ko';
  t.match(diamond, `kernel/fs/loopback.ko: ${behind}\n`, 'what both need comes last');
  t.throws(() => collectModules(folder, ['absent']), /no module absent/);
  t.end();
});
