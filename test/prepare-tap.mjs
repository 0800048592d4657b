// `tap build` writes the runner for the plugin list in package.json. A fresh install has none, and
// tap would then use its default TypeScript plugin, which cannot load TypeScript 7. Runs once.
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';

const stamp = new URL('../.tap/plugins-built', import.meta.url);
const pkg = new URL('../package.json', import.meta.url);
const lock = new URL('../node_modules/.package-lock.json', import.meta.url);
const builtMs = existsSync(stamp) ? statSync(stamp).mtimeMs : 0;
const wantedMs = Math.max(statSync(pkg).mtimeMs, existsSync(lock) ? statSync(lock).mtimeMs : 0);

if (builtMs < wantedMs) {
  execFileSync('npx', ['tap', 'build'], { stdio: 'inherit' });
  const { mkdirSync, writeFileSync } = await import('node:fs');
  mkdirSync(new URL('.', stamp), { recursive: true });
  writeFileSync(stamp, '');
}
