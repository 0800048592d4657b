// Goal: what the README shows works. Method: its first example is run as it stands, but for a free
// port, in a process of its own; the codes and limits it lists are compared with those that exist.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { DEFAULT_SERVER_LIMITS } from 'nbd-server-ts';
import t from 'tap';
import { RawClient } from './support/raw-client.ts';

const root = new URL('../../../', import.meta.url);
const readme = readFileSync(new URL('src/nbd-server-ts/README.md', root), 'utf8');

void t.test('the first example serves a Buffer in 15 lines', async (t) => {
  const code = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const lines = code.split('\n').filter((line) => line.trim() !== '');
  t.ok(lines.length <= 15, `${lines.length} lines`);
  t.match(code, 'port: 10809');
  const child = spawn(
    process.execPath,
    ['--input-type=module', '-e', code.replace('port: 10809', 'port: 0')],
    { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.teardown(() => child.kill('SIGKILL'));
  const exited = new Promise((resolve) => child.once('exit', resolve));
  let port = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    port = Number(/port: (\d+)/.exec(line)?.[1] ?? port);
    if (line.includes('uri')) break;
  }
  const client = await RawClient.connect({ host: '127.0.0.1', port });
  await client.greet();
  await client.go('hello');
  client.request({ command: 0, length: 19 });
  t.equal((await client.simpleReply(19)).data.toString(), 'Hello, block world!');
  child.kill('SIGTERM');
  t.equal((await client.closed()).length, 0, 'SIGTERM ends it');
  t.equal(await exited, 0);
});

void t.test('every limit and error code is documented', async (t) => {
  for (const name of Object.keys(DEFAULT_SERVER_LIMITS)) t.match(readme, `\`${name}\``, name);
  const errors = readFileSync(new URL('src/nbd-server-ts/src/errors.ts', root), 'utf8');
  const codes = errors.match(/ERR_NBD_\w+/g) ?? [];
  t.ok(codes.length > 5);
  for (const code of codes) t.match(readme, `\`${code}\``, code);
});
