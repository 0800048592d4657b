// Goal: the README's tables name every option of `serve`, no other, and the defaults that are used.

import { readFileSync } from 'node:fs';
import t from 'tap';
import { serveCommand } from '../../src/cli/serve.ts';

const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
const section = /^## Options of `serve`$([\s\S]*?)^## /m.exec(readme)?.[1] ?? '';

/** What a row says behind the option, by option. */
const rows = new Map<string, string>();
for (const [, option = '', rest = ''] of section.matchAll(/^\| `(--[a-z-]+)[^`]*`\s*\|(.*)$/gm)) {
  // The first row of an option that has several is that of its default.
  if (!rows.has(option)) rows.set(option, rest);
}

const options = serveCommand().options.filter(({ long }) => long !== '--help');

void t.test('every option, and no other', async (t) => {
  const real = options.map(({ long }) => long ?? '');
  t.strictSame([...rows.keys()].sort(), real.sort());
});

void t.test('the defaults', async (t) => {
  for (const { long = '', defaultValue, defaultValueDescription } of options) {
    if (defaultValue === undefined) continue;
    const text = defaultValueDescription ?? String(defaultValue);
    const [shown = ''] = (rows.get(long ?? '') ?? '').split('|');
    t.ok(text.startsWith(shown.trim()) && shown.trim() !== '', `${long}: ${text}, not ${shown}`);
  }
});
