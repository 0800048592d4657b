/**
 * Goal: every event of the log is in the README with its meaning, and every one listed is used.
 * That each line has a listed one is the compiler's to see.
 */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { LOG_EVENTS } from '../../src/daemon/log-events.ts';
import { filesBelow, ROOT } from '../house/source-files.ts';

void t.test('the table in the README', async (t) => {
  const readme = readFileSync(`${ROOT}/README.md`, 'utf8');
  const table = readme.slice(
    readme.indexOf('### The log'),
    readme.indexOf('## Options of `serve`'),
  );
  const rows = [...table.matchAll(/^\| `([a-z-]+)` +\| (.*?) +\|$/gm)].map((row) => [
    row[1],
    row[2],
  ]);
  t.strictSame(rows, Object.entries(LOG_EVENTS));
});

void t.test('no event is listed in vain', async (t) => {
  const files = [...filesBelow('src/daemon', ['.ts']), ...filesBelow('src/nbd-device', ['.ts'])];
  const sources = files.filter(({ path }) => !/log-events/.test(path));
  const text = sources.map((file) => file.text).join('\n');
  const unused = Object.keys(LOG_EVENTS).filter((event) => !text.includes(`'${event}'`));
  t.strictSame(unused, []);
});
