// Goal: what people type as an address or a size is understood as they meant it, or refused.
import t from 'tap';
import {
  formatAddress,
  nbdUri,
  parseServeAddress,
  parseTcpAddress,
  parseUnixAddress,
} from '../../src/daemon/addresses.ts';
import { UsageError } from '../../src/daemon/errors.ts';
import { parseSimulatedDisk, parseSize } from '../../src/daemon/serve-options.ts';

void t.test('TCP addresses', (t) => {
  t.strictSame(parseTcpAddress('127.0.0.1:10809'), { kind: 'tcp', host: '127.0.0.1', port: 10809 });
  t.strictSame(parseTcpAddress('[::1]:0'), { kind: 'tcp', host: '::1', port: 0 });
  t.strictSame(parseTcpAddress(':1234'), { kind: 'tcp', host: '::', port: 1234 });
  t.strictSame(parseTcpAddress('host.example:65535'), {
    kind: 'tcp',
    host: 'host.example',
    port: 65535,
  });
  for (const bad of ['', 'host', '::1:80', 'host:', 'host:65536', 'host:-1', 'host:1x', '[::1]']) {
    t.throws(() => parseTcpAddress(bad), UsageError, bad);
  }
  t.end();
});

void t.test('addresses of vsock', (t) => {
  const everywhere = { kind: 'vsock', cid: undefined, port: 10809 } as const;
  t.strictSame(parseServeAddress('vsock:10809'), everywhere);
  t.equal(formatAddress(everywhere), 'vsock:10809');
  const one = { kind: 'vsock', cid: 3, port: 4294967294 } as const;
  t.strictSame(parseServeAddress('vsock:3:4294967294'), one);
  t.equal(formatAddress(one), 'vsock:3:4294967294');
  t.equal(nbdUri(one, 'xvda'), 'nbd+vsock://3:4294967294/xvda');
  t.equal(nbdUri(one, '', true), 'nbds+vsock://3:4294967294/');
  t.strictSame(parseServeAddress('host:80'), parseTcpAddress('host:80'));
  for (const bad of [
    'vsock:',
    'vsock:x',
    'vsock:1:',
    'vsock::1',
    'vsock:4294967295',
    'vsock:1:2:3',
  ]) {
    t.throws(() => parseServeAddress(bad), UsageError, bad);
  }
  t.throws(() => parseServeAddress('vsock:4294967295:1'), UsageError, 'the CID of all is none');
  t.end();
});

void t.test('Unix addresses: 107 bytes fit, 108 do not', (t) => {
  const path = `/${'a'.repeat(106)}`;
  t.strictSame(parseUnixAddress(path), { kind: 'unix', path });
  t.throws(() => parseUnixAddress(`${path}a`), /108 bytes/);
  t.throws(() => parseUnixAddress(''), UsageError);
  t.end();
});

void t.test('URIs are ready to be pasted', (t) => {
  t.equal(
    nbdUri({ kind: 'unix', path: '/run/a b&c.sock' }, 'xvda'),
    'nbd+unix:///xvda?socket=/run/a%20b%26c.sock',
  );
  t.equal(nbdUri({ kind: 'tcp', host: '::1', port: 10809 }, ''), 'nbd://[::1]:10809/');
  t.equal(nbdUri({ kind: 'tcp', host: '127.0.0.1', port: 1 }, 'a/b'), 'nbd://127.0.0.1:1/a%2Fb');
  t.end();
});

void t.test('sizes', (t) => {
  t.equal(parseSize('512'), 512);
  t.equal(parseSize('64M'), 67_108_864);
  t.equal(parseSize('2G'), 2_147_483_648);
  t.equal(parseSize('8T'), 8_796_093_022_208);
  t.equal(parseSize('1k'), 1024);
  t.equal(parseSize('1MiB'), 1_048_576);
  for (const bad of ['', 'M', '64X', '1.5G', '-1', '0x10', 'disk.img', '99999999999T']) {
    t.equal(parseSize(bad), undefined, bad);
  }
  t.end();
});

void t.test('a simulated disk is a size or else a file', (t) => {
  t.strictSame(parseSimulatedDisk('64M'), { kind: 'memory', sizeBytes: 67_108_864 });
  t.strictSame(parseSimulatedDisk('./64M'), { kind: 'file', path: './64M' });
  t.throws(() => parseSimulatedDisk('0'), /not zero/);
  t.throws(() => parseSimulatedDisk('1000'), /multiple of 512/);
  t.end();
});
