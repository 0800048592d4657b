/**
 * Goal: the manual page and the completions tell every command and option that there is, and the
 * programs that read them have nothing to complain of; each shell completes what it should.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createProgram } from '../../src/cli/main.ts';
import { makeFolder } from '../daemon/support/simulated.ts';
import { runXenblkNbd } from '../support/daemon.ts';
import { findProgram, runProgram } from '../support/program.ts';

const PROGRAM = await createProgram();
const COMMANDS = PROGRAM.commands.map((command) => command.name());
const OPTIONS = PROGRAM.commands.flatMap((command) =>
  command.options.map(({ long }) => [command.name(), long ?? ''] as const),
);
const MAN = findProgram('man');
const ZSH = findProgram('zsh');
const FISH = findProgram('fish');

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

/** Lines, and what a shell must offer at the end of each; the same in every shell. */
const OFFERED: readonly (readonly [line: string, words: readonly string[]])[] = [
  ['', COMMANDS],
  ['li', ['list']],
  ['--v', ['--version']],
  ['serve --max-o', ['--max-options', '--max-option-size']],
  ['serve --he', ['--help']],
  ['serve --tls ', ['off', 'allow', 'require']],
  ['serve --tls r', ['require']],
  ['serve --queues ', []],
  ['serve --tls-cert ./on', ['./only.txt']],
  // May stand there again.
  ['serve --unix /run/a.sock --unix ./on', ['./only.txt']],
  ['trace ./on', ['./only.txt']],
  ['completion b', ['bash']],
  ['list --j', ['--json']],
  ['list --simulate 64M --j', ['--json']],
  ['nonsense --j', []],
];

/** A folder with one file, and what completes in a shell there. */
function makeCompletionFolder(t: Test): string {
  const folder = makeFolder(t);
  writeFileSync(join(folder, 'only.txt'), '');
  return folder;
}

/** Calls the function as bash does; files, where it leaves them to bash. */
const BASH_CALL = `
is_default=
compopt() { is_default=1; }
IFS=' ' read -ra COMP_WORDS <<<"$1"
[[ $1 != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
_xenblk_nbd
if [[ $is_default && \${#COMPREPLY[@]} == 0 ]]; then compgen -f -- "\${COMP_WORDS[-1]}"; fi
printf '%s\\n' "\${COMPREPLY[@]}"
`;

void t.test('bash', async (t) => {
  const { stdout } = await runXenblkNbd(['completion', 'bash']);
  const cwd = makeCompletionFolder(t);
  for (const [line, words] of OFFERED) {
    const script = ['-euo', 'pipefail', '-c', `${stdout}${BASH_CALL}`, '', `xenblk-nbd ${line}`];
    const result = await runProgram('/bin/bash', script, { cwd });
    t.equal(result.stderr, '');
    const expected = line === '' ? [...words, '--help', '--version'] : words;
    t.strictSame(linesOf(result.stdout), expected, line);
  }
});

/** An interactive zsh that writes down what it offers; ^G ends a line. */
const ZSHRC = `
fpath=($PWD $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  local -a found
  builtin compadd -A found "$@"
  (($#found)) && print -rl -- $found >>offered
  builtin compadd "$@"
}
next_line() { print -r -- LINE-ENDED; BUFFER= }
zle -N next_line
bindkey '^G' next_line
`;

/** Types each line and a tab; what was offered, between lines that say so. */
const ZSH_DRIVER = `
zmodload zsh/zpty
zpty shell zsh -i
for line in "$@"; do
  : >offered
  zpty -w -n shell "$line"$'\\t\\a'
  zpty -r shell seen '*LINE-ENDED*'
  print -r -- "line:$line"
  cat offered
done
zpty -d shell
`;

void t.test('zsh', { skip: ZSH === undefined && 'zsh is not installed' }, async (t) => {
  const cwd = makeCompletionFolder(t);
  const { stdout: script } = await runXenblkNbd(['completion', 'zsh']);
  for (const how of ['found by its name', 'read by the shell']) {
    const isFound = how === 'found by its name';
    writeFileSync(join(cwd, '_xenblk-nbd'), isFound ? script : '');
    writeFileSync(join(cwd, 'script'), script);
    writeFileSync(join(cwd, '.zshrc'), isFound ? ZSHRC : `${ZSHRC}source ./script\n`);
    const lines = OFFERED.map(([line]) => `xenblk-nbd ${line}`);
    const options = { cwd, env: { ZDOTDIR: cwd, TERM: 'dumb' } };
    const result = await runProgram(ZSH ?? '', ['-f', '-c', ZSH_DRIVER, '', ...lines], options);
    t.equal(result.stderr, '');
    const offered = result.stdout.split(/^line:.*\n/m).slice(1);
    for (const [index, [line, words]] of OFFERED.entries()) {
      // zsh offers the last part of a path.
      const expected = words.map((word) => word.replace(/^\.\//, ''));
      t.strictSame(linesOf(offered[index] ?? ''), expected, `${how}: ${line}`);
    }
  }
});

void t.test('fish', { skip: FISH === undefined && 'fish is not installed' }, async (t) => {
  const cwd = makeCompletionFolder(t);
  const { stdout } = await runXenblkNbd(['completion', 'fish']);
  writeFileSync(join(cwd, 'script.fish'), stdout);
  const ask = 'source script.fish; for line in $argv; echo "line:$line"; complete -C "$line"; end';
  const lines = OFFERED.map(([line]) => `xenblk-nbd ${line}`);
  const options = { cwd, env: { HOME: cwd } };
  const result = await runProgram(FISH ?? '', ['--no-config', '-c', ask, ...lines], options);
  t.equal(result.stderr, '');
  const offered = result.stdout.split(/^line:.*\n/m).slice(1);
  for (const [index, [line, words]] of OFFERED.entries()) {
    const found = linesOf(offered[index] ?? '').map((each) => each.replace(/\t.*$/, ''));
    t.strictSame(found.sort(), [...words].sort(), line);
  }
});

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}
