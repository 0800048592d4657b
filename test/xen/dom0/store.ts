// XenStore through Xen's own command line tools: a witness that shares no code with ours. -R:
// without it they translate backslashes.
import { spawn } from 'node:child_process';
import { run } from './commands.ts';

export async function storeRead(path: string): Promise<string> {
  return (await run('xenstore-read', '-R', path)).replace(/\n$/, '');
}

/** The value, or undefined when there is no such node. */
export async function storeReadIfAny(path: string): Promise<string | undefined> {
  try {
    return await storeRead(path);
  } catch (error) {
    if (await storeExists(path)) throw error;
    return undefined;
  }
}

export async function storeExists(path: string): Promise<boolean> {
  return run('xenstore-exists', path).then(
    () => true,
    () => false,
  );
}

export async function storeWrite(values: Readonly<Record<string, string>>): Promise<void> {
  await run('xenstore-write', '-R', ...Object.entries(values).flat());
}

export async function storeRemove(...paths: string[]): Promise<void> {
  await run('xenstore-rm', ...paths);
}

/** Names of the children; none when there is no such node. */
export async function storeList(path: string): Promise<string[]> {
  const text = await run('xenstore-list', path).catch(() => '');
  return text.split('\n').filter((name) => name !== '');
}

/**
 * Asks `probe` each time that something happens at or below `path`, until it gives something other
 * than undefined. A guest that shares the processor gets all of it meanwhile, which asking again
 * and again would not leave it. `start` runs once the watch is set, and is what makes it happen.
 */
export async function storeWait<Result>(
  path: string,
  timeoutMs: number,
  start: (() => Promise<void>) | undefined,
  probe: () => Promise<Result | undefined>,
): Promise<Result> {
  const watch = spawn('xenstore-watch', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const timer = setTimeout(() => watch.kill(), timeoutMs);
  try {
    let toStart = start;
    // The first event says that the watch is set.
    for await (const _event of watch.stdout) {
      if (toStart !== undefined) {
        await toStart();
        toStart = undefined;
        continue;
      }
      const result = await probe();
      if (result !== undefined) return result;
    }
    throw new Error(`nothing more happens at ${path} within ${timeoutMs} ms`);
  } finally {
    clearTimeout(timer);
    watch.kill();
  }
}
