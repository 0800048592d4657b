// Goal: what only newer kernels do well is asked of them alone, whatever a release is called.
import t from 'tap';
import { isAtLeast } from '../../src/nbd-device/linux-nbd.ts';

void t.test('releases of Linux', (t) => {
  for (const [release, expected] of [
    ['6.1.0-56-amd64', true],
    ['5.10.0', true],
    ['5.10-rc1', true],
    ['10.0', true],
    ['5.9.16', false],
    ['4.19.0-27-amd64', false],
    ['', false],
    ['unknown', false],
  ] as const) {
    t.equal(isAtLeast([5, 10], release), expected, release);
  }
  t.end();
});
