/** `xenblk-nbd list`: the vbds of this guest, and who drives each. */

import { Command } from 'commander';
import { formatList, listGuestVbds, withGuest } from '../survey/index.ts';
import { addGuestOptions, type GuestFlags, guestChoice, print } from './guest-options.ts';

export function listCommand(): Command {
  const command = new Command('list').description(
    'the vbds of this guest: number, name, size, mode, backend, state, who drives it',
  );
  return addGuestOptions(command).action(run);
}

async function run(flags: GuestFlags): Promise<void> {
  const vbds = await withGuest(guestChoice([], flags), listGuestVbds);
  print(vbds, flags.json === true, formatList);
}
