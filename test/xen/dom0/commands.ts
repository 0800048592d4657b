// Programs of dom0, and waiting for something to become true.
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

/** What a program printed on stdout; rejects with what it printed on stderr. */
export function run(program: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: 600_000, maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const why = stderr.trim() === '' ? error.message : stderr.trim();
      reject(new Error(`${program} ${args.join(' ')}: ${why}`, { cause: error }));
    });
  });
}

/**
 * Asks `probe` until it gives something other than undefined. Dom0's kernel and tools have no
 * other way to say that they are done.
 */
export async function eventually<Result>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<Result | undefined> | Result | undefined,
): Promise<Result> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const result = await probe();
    if (result !== undefined) return result;
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(50);
  }
}
