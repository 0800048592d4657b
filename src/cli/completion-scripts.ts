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
    const words = command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []);
    return `    ${command.name()}) offer '${[...longNames(command), ...words].join(' ')}' ;;`;
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
    const words = command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []);
    const positional = words.length === 0 ? [] : [`'*:value:(${words.join(' ')})'`];
    return `    ${command.name()}) _arguments ${[...specs, ...positional].join(' ')} ;;`;
  });
  return `#compdef ${name}
_${identifier(name)}() {
  local -a commands
  commands=(
${commands.join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${cases.join('\n')}
  esac
}
_${identifier(name)} "$@"
`;
}

function zshOption(option: Option): string {
  const spec = `${option.long ?? ''}[${zshText(option.description)}]`;
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
  const lines = [`# fish completion of ${name}`, `complete -c ${name} -f`];
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
    const words = command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []);
    if (words.length > 0) lines.push(`${within} -a '${words.join(' ')}'`);
  }
  return `${lines.join('\n')}\n`;
}

function fishText(text: string): string {
  return `'${text.replaceAll(/[\\']/g, '\\$&')}'`;
}

function identifier(name: string): string {
  return name.replaceAll(/[^a-z0-9]/g, '_');
}
