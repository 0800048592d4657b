// Goal: the examples of the README's section on the library do what it says. Method: each is run as
// a program of its own, which finds the library by its public name; what it prints is compared with
// the comments behind the lines that print.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from '../house/source-files.ts';
import { runProgram } from '../support/program.ts';

const section = /^## The library\n(.*?)^## /ms;

void t.test('the examples of the README', async (t) => {
  const text = section.exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))?.[1] ?? '';
  const examples = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, code = '']) => code);
  t.ok(examples.length >= 2, 'there are some');
  const folder = join(ROOT, 'build/readme-examples');
  mkdirSync(folder, { recursive: true });
  for (const [index, code] of examples.entries()) {
    const path = join(folder, `example-${index + 1}.mjs`);
    writeFileSync(path, code);
    const expected = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, line]) => line);
    t.ok(expected.length > 0, `example ${index + 1} prints something`);
    const { status, stdout, stderr } = await runProgram(process.execPath, [path]);
    t.equal(stderr, '');
    t.strictSame(stdout.trimEnd().split('\n'), expected, `example ${index + 1}`);
    t.equal(status, 0);
  }
});
