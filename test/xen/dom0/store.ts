// XenStore through Xen's own command line tools: a witness that shares no code with ours. -R:
// without it they translate backslashes.
import { run } from './commands.ts';

export async function storeRead(path: string): Promise<string> {
  return (await run('xenstore-read', '-R', path)).replace(/\n$/, '');
}

/** The value, or undefined when there is no such node. */
export async function storeReadIfAny(path: string): Promise<string | undefined> {
  return (await storeExists(path)) ? storeRead(path) : undefined;
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
