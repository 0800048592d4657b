// Goal: the log is JSON for programs and plain lines for whoever sits at a terminal, of the levels
// that were asked for.
import { PassThrough } from 'node:stream';
import t from 'tap';
import { createLogger, type LogLevel } from '../../src/daemon/log.ts';

/** What is written about two events. */
function linesOf(isTTY: boolean, level: LogLevel): string[] {
  const stderr = Object.assign(new PassThrough(), { isTTY }) as unknown as NodeJS.WriteStream;
  const log = createLogger(level, stderr);
  log.info('attached', { vbd: 'xvda', slots: 32 }, 'xvda is here');
  log.warn('recovery-began', { vbd: 'xvda' }, 'xvda is lost');
  const text = (stderr as unknown as PassThrough).read() as Buffer | null;
  return (text?.toString() ?? '').split('\n').slice(0, -1);
}

void t.test('JSON', async (t) => {
  const [first, second, ...others] = linesOf(false, 'info').map((line): unknown =>
    JSON.parse(line),
  );
  t.match(first, { level: 30, event: 'attached', vbd: 'xvda', slots: 32, message: 'xvda is here' });
  t.match(second, { level: 40, event: 'recovery-began', message: 'xvda is lost' });
  t.strictSame(others, []);
});

void t.test('plain lines on a terminal', async (t) => {
  const [first, second, ...others] = linesOf(true, 'info');
  t.match(first, /^\d\d:\d\d:\d\d info {2}xvda is here$/);
  t.match(second, /^\d\d:\d\d:\d\d warn {2}xvda is lost$/);
  t.strictSame(others, []);
});

void t.test('the level', async (t) => {
  t.equal(linesOf(false, 'warn').length, 1);
  t.strictSame(linesOf(true, 'silent'), []);
});
