/**
 * Goal: the manual page and the completions tell every command and option that there is, and the
 * programs that read them have nothing to complain of; bash completes what it should.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createProgram } from '../../src/cli/main.ts';
import { makeFolder } from '../daemon/support/simulated.ts';
import { runXenblkNbd } from '../support/daemon.ts';
import { findProgram, runProgram } from '../support/program.ts';

const PROGRAM = createProgram();
const COMMANDS = PROGRAM.commands.map((command) => command.name());
const OPTIONS = PROGRAM.commands.flatMap((command) =>
  command.options.map(({ long }) => [command.name(), long ?? ''] as const),
);
const MAN = findProgram('man');

void t.test('the manual page', async (t) => {
  const { status, stdout } = await runXenblkNbd(['man-page']);
  t.equal(status, 0);
  for (const command of COMMANDS) {
    const name = command.replaceAll('-', '\\-');
    t.ok(stdout.includes(`.SS xenblk-nbd ${command}`) || stdout.includes(name), command);
  }
  for (const [command, long] of OPTIONS) {
    t.ok(stdout.includes(`.B ${long.replaceAll('-', '\\-')}`), `${command} ${long}`);
  }
  if (MAN === undefined) return t.comment('man is not installed');
  const path = join(makeFolder(t), 'xenblk-nbd.1');
  writeFileSync(path, stdout);
  const env = { LC_ALL: 'C.UTF-8', MANWIDTH: '80', MANPAGER: 'cat' };
  const page = await runProgram(MAN, ['--warnings', '-l', path], { env });
  t.equal(page.status, 0);
  t.equal(page.stderr, '', 'man has nothing to say about it');
  t.match(page.stdout, /SYNOPSIS/);
});

void t.test('completions name everything', async (t) => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { stdout } = await runXenblkNbd(['completion', shell]);
    const missing = [
      ...COMMANDS.filter((command) => !stdout.includes(command)),
      ...OPTIONS.filter(
        ([, long]) => !stdout.includes(shell === 'fish' ? `-l ${long.slice(2)}` : long),
      ),
    ];
    t.strictSame(missing, [], shell);
  }
  t.match(await runXenblkNbd(['completion', 'csh']), {
    status: 2,
    stderr: /Allowed choices are bash/,
  });
});

void t.test('bash', async (t) => {
  const { stdout } = await runXenblkNbd(['completion', 'bash']);
  const complete = async (...words: string[]): Promise<string[]> => {
    const list = words.map((word) => `'${word}'`).join(' ');
    const script =
      `${stdout}\ncompopt() { echo "compopt $*"; }\n` +
      `COMP_WORDS=(xenblk-nbd ${list}); COMP_CWORD=${words.length}; _xenblk_nbd\n` +
      `printf "%s\\n" "\${COMPREPLY[@]}"`;
    const result = await runProgram('/bin/bash', ['-euo', 'pipefail', '-c', script]);
    t.equal(result.stderr, '');
    return result.stdout.split('\n').filter((word) => word !== '');
  };
  t.strictSame(await complete(''), [...COMMANDS, '--help', '--version']);
  t.strictSame(await complete('li'), ['list']);
  t.strictSame(await complete('serve', '--max-o'), ['--max-options', '--max-option-size']);
  t.strictSame(await complete('serve', '--tls', ''), ['off', 'allow', 'require']);
  t.strictSame(await complete('serve', '--tls', 'r'), ['require']);
  t.strictSame(await complete('serve', '--queues', ''), []);
  t.strictSame(await complete('serve', '--tls-cert', ''), ['compopt -o default']);
  t.strictSame(await complete('completion', 'b'), ['bash']);
  t.strictSame(await complete('list', '--j'), ['--json']);
  t.strictSame(await complete('nonsense', '--j'), []);
});
