/** `xenblk-nbd completion SHELL`: the script that makes a shell complete this command line. */

import { Argument, Command } from 'commander';
import { renderCompletion, SHELLS, type Shell } from './completion-scripts.ts';

/** @param program - the whole command line, which is looked at when the command runs. */
export function completionCommand(program: Command): Command {
  return new Command('completion')
    .description(
      'print the completion script of a shell; bash: source <(xenblk-nbd completion bash)',
    )
    .addArgument(new Argument('<shell>', 'which shell').choices([...SHELLS]))
    .action((shell: Shell) => {
      process.stdout.write(renderCompletion(program, shell));
    });
}
