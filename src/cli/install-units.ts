/** `xenblk-nbd install-units`: the files that systemd needs to run `serve` as a service. */

import { Command } from 'commander';
import { UsageError } from '../daemon/index.ts';
import { installUnits, type PlannedFile, planUnits, thisCommand } from '../service/index.ts';

interface Flags {
  readonly prefix?: string;
  readonly command?: string;
  readonly dryRun?: true;
  readonly force?: true;
}

export function installUnitsCommand(): Command {
  return new Command('install-units')
    .description('write the units, udev rules and module settings to run `serve` under systemd')
    .option('--prefix <dir>', 'write below DIR/lib, as packages do with /usr (default: /etc)')
    .option('--command <path>', 'what the units start (default: this program)')
    .option('--dry-run', 'print the files, and write nothing')
    .option('--force', 'overwrite files that were changed')
    .action(run);
}

/** Folders that the service cannot see: ProtectHome= hides them from it. */
const HIDDEN = /^(?:\/home|\/root|\/run\/user)\//;

function run(flags: Flags): void {
  const { prefix, command } = flags;
  if (command !== undefined && !command.startsWith('/')) {
    throw new UsageError(`--command ${command}: give the path from the root, /usr/bin/xenblk-nbd`);
  }
  const options = {
    prefix,
    command: command ?? thisCommand(process.argv[1] ?? ''),
    isForced: flags.force === true,
  };
  if (flags.dryRun === true) {
    for (const { path, content, state } of planUnits(options)) {
      process.stdout.write(`# ${path} (${WORDS[state]})\n${content}\n`);
    }
    return;
  }
  for (const { path, state } of installUnits(options)) {
    process.stdout.write(`${state === 'same' ? 'unchanged' : 'written'}  ${path}\n`);
  }
  if (prefix === undefined) process.stdout.write(NEXT_STEPS);
  const hidden = options.command.split(' ').find((part) => HIDDEN.test(part));
  if (hidden !== undefined) {
    process.stderr.write(
      `xenblk-nbd: the service may not look into ${hidden}: install the program for everybody, ` +
        'for example with `npm install --global`, and run this again\n',
    );
  }
}

const WORDS: Readonly<Record<PlannedFile['state'], string>> = {
  new: 'new',
  same: 'unchanged',
  changed: 'differs from what is there',
};

const NEXT_STEPS = `
Once, to put them to work (a restart of the guest does it as well):
  systemd-sysusers && udevadm control --reload
  modprobe -a xen-gntalloc xen-evtchn && udevadm trigger --subsystem-match=misc
  systemctl daemon-reload
Then, for the vbd xvdb:
  xenblk-nbd doctor xvdb
  systemctl enable --now xenblk-nbd@xvdb            serve it
  systemctl enable --now xenblk-nbd-client@xvdb     and have it as /dev/nbd0
`;
