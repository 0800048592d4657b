/** Completion for shells, made of the definitions of commander. */

import type { Command, Option } from 'commander';

/** Shells that there is a script for. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;
/** One of {@link SHELLS}. */
export type Shell = (typeof SHELLS)[number];

/** The script that makes `shell` complete `program`. */
export function renderCompletion(program: Command, shell: Shell): string {
  switch (shell) {
    case 'bash':
      return bash(program);
    case 'zsh':
      return zsh(program);
    case 'fish':
      return fish(program);
  }
}

/** What may follow an option: words, a file, or something that nobody can guess. */
function valueKind(option: Option): 'none' | 'words' | 'file' | 'other' {
  if (!option.required && !option.optional) return 'none';
  if (option.argChoices !== undefined) return 'words';
  return /<.*(?:file|path|dir).*>/.test(option.flags) ? 'file' : 'other';
}

/** The words that arguments of a command are chosen from. */
function argumentWords(command: Command): readonly string[] {
  return command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []);
}

function takesFile(command: Command): boolean {
  return command.registeredArguments.some((argument) => argument.name() === 'file');
}

function longNames(command: Command): string[] {
  return [...command.options.map(({ long }) => long ?? ''), '--help'].filter((name) => name !== '');
}

// --- bash

function bash(program: Command): string {
  const name = program.name();
  const commands = program.commands.map((command) => command.name());
  const cases = program.commands.flatMap((command) =>
    command.options.flatMap((option) => bashValue(command, option)),
  );
  const options = program.commands.map((command) => {
    const words = [...longNames(command), ...argumentWords(command)];
    // Files are what is left when no word begins so.
    const files = takesFile(command) ? 'compopt -o default; ' : '';
    return `    ${command.name()}) ${files}offer '${words.join(' ')}' ;;`;
  });
  return `# bash completion of ${name}
_${identifier(name)}() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]}
  offer() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current"); }
  if ((COMP_CWORD == 1)); then
    offer '${[...commands, '--help', '--version'].join(' ')}'
    return
  fi
  case "$command $before" in
${cases.join('\n')}
  esac
  case $command in
${options.join('\n')}
  esac
}
complete -F _${identifier(name)} ${name}
`;
}

function bashValue(command: Command, option: Option): string[] {
  const pattern = `'${command.name()} ${option.long ?? ''}'`;
  switch (valueKind(option)) {
    case 'none':
      return [];
    case 'words':
      return [`    ${pattern}) offer '${(option.argChoices ?? []).join(' ')}'; return ;;`];
    case 'file':
      return [`    ${pattern}) compopt -o default; COMPREPLY=(); return ;;`];
    case 'other':
      return [`    ${pattern}) COMPREPLY=(); return ;;`];
  }
}

// --- zsh

function zsh(program: Command): string {
  const name = program.name();
  const commands = program.commands.map(
    (command) => `    '${command.name()}:${zshText(command.description())}'`,
  );
  const cases = program.commands.map((command) => {
    const specs = command.options.map(zshOption);
    const words = argumentWords(command);
    const positional = [
      ...(words.length === 0 ? [] : [`'*:value:(${words.join(' ')})'`]),
      ...(takesFile(command) ? ["'*:file:_files'"] : []),
    ];
    const all = [...specs, "'--help[show the options]'", ...positional];
    return `    ${command.name()}) _arguments ${all.join(' ')} ;;`;
  });
  return `#compdef ${name}
_${identifier(name)}() {
  local -a commands
  commands=(
${commands.join('\n')}
  )
  if ((CURRENT == 2)); then
    if [[ $PREFIX == -* ]]; then
      _arguments '--help[show the commands]' '--version[show the version]'
    else
      _describe command commands
    fi
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${cases.join('\n')}
  esac
}
# The first time it is found by its name, it is to complete at once; a script only makes it known.
if [[ $funcstack[1] == _${name} ]]; then
  _${identifier(name)} "$@"
else
  compdef _${identifier(name)} ${name}
fi
`;
}

function zshOption(option: Option): string {
  // One that is collected may stand there again.
  const again = Array.isArray(option.defaultValue) ? '*' : '';
  const spec = `${again}${option.long ?? ''}[${zshText(option.description)}]`;
  switch (valueKind(option)) {
    case 'none':
      return `'${spec}'`;
    case 'words':
      return `'${spec}:value:(${(option.argChoices ?? []).join(' ')})'`;
    case 'file':
      return `'${spec}:file:_files'`;
    case 'other':
      return `'${spec}:value:'`;
  }
}

/** Inside of '...:...[...]' nothing of this may stand as it is. */
function zshText(text: string): string {
  return text.replaceAll(/[[\]:\\]/g, '\\$&').replaceAll("'", "'\\''");
}

// --- fish

function fish(program: Command): string {
  const name = program.name();
  const lines = [
    `# fish completion of ${name}`,
    `complete -c ${name} -f`,
    `complete -c ${name} -l help -d 'show the commands, or the options of one'`,
    `complete -c ${name} -n __fish_use_subcommand -l version -d 'show the version'`,
  ];
  for (const command of program.commands) {
    const text = fishText(command.description());
    lines.push(`complete -c ${name} -n __fish_use_subcommand -a ${command.name()} -d ${text}`);
    const within = `complete -c ${name} -n '__fish_seen_subcommand_from ${command.name()}'`;
    for (const option of command.options) {
      const long = (option.long ?? '').replace(/^--/, '');
      const values = {
        none: '',
        words: ` -x -a '${(option.argChoices ?? []).join(' ')}'`,
        file: ' -r -F',
        other: ' -x',
      }[valueKind(option)];
      lines.push(`${within} -l ${long}${values} -d ${fishText(option.description)}`);
    }
    const words = argumentWords(command);
    if (words.length > 0) lines.push(`${within} -a '${words.join(' ')}'`);
    if (takesFile(command)) lines.push(`${within} -F`);
  }
  return `${lines.join('\n')}\n`;
}

function fishText(text: string): string {
  return `'${text.replaceAll(/[\\']/g, '\\$&')}'`;
}

function identifier(name: string): string {
  return name.replaceAll(/[^a-z0-9]/g, '_');
}
