/** The manual page, made of the definitions of commander so that it never tells something else. */

import type { Argument, Command, Option } from 'commander';

/** Sections that commander knows nothing of. */
export interface ManualSections {
  readonly version: string;
  /** Title and paragraphs, in order, behind the commands. */
  readonly others: readonly (readonly [title: string, paragraphs: readonly string[]])[];
}

/** The page as roff with the macros of man(7). */
export function renderManual(program: Command, { version, others }: ManualSections): string {
  const name = program.name();
  const lines = [
    `.TH ${name.toUpperCase()} 1 "" "${name} ${version}" "User Commands"`,
    '.SH NAME',
    `${name} \\- ${toRoff(lowerFirst(program.description()).replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    `.B ${name}`,
    '.I command',
    '[\\fIoption\\fR...] [\\fIargument\\fR...]',
    '.SH COMMANDS',
    ...program.commands.flatMap((command) => renderCommand(name, command)),
    ...others.flatMap(([title, paragraphs]) => [
      `.SH ${title}`,
      ...paragraphs.flatMap((text) => ['.PP', toRoff(text)]),
    ]),
  ];
  return `${lines.join('\n')}\n`;
}

function renderCommand(name: string, command: Command): string[] {
  const usage = command.registeredArguments.map(formatArgument).join(' ');
  return [
    `.SS ${name} ${command.name()} ${toRoff(usage)}`.trimEnd(),
    `${toRoff(upperFirst(command.description()))}.`,
    ...command.registeredArguments
      .filter(({ description }) => description !== '')
      .flatMap((argument) => [
        '.TP',
        `.I ${toRoff(argument.name())}`,
        toRoff(argument.description),
      ]),
    ...command.options.flatMap((option) => [
      '.TP',
      `.B ${toRoff(option.flags)}`,
      toRoff(describeOption(option)),
    ]),
  ];
}

function formatArgument(argument: Argument): string {
  const name = `${argument.name()}${argument.variadic ? '...' : ''}`;
  return argument.required ? name : `[${name}]`;
}

/** What an option means, what it may be, and what it is when it is not given. */
export function describeOption(option: Option): string {
  const { description, argChoices, defaultValue, defaultValueDescription } = option;
  const extra = [
    ...(argChoices === undefined ? [] : [`one of ${argChoices.join(', ')}`]),
    ...(defaultValue === undefined
      ? []
      : [`default: ${defaultValueDescription ?? String(defaultValue)}`]),
  ];
  return extra.length === 0 ? description : `${description} (${extra.join('; ')})`;
}

/** Text in which roff sees nothing of its own. */
function toRoff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^(?=[.'])/gm, '\\&')
    .replaceAll('`', '\\(ga');
}

function upperFirst(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
