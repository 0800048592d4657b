/** `xenblk-nbd info VBD`: what its backend offers, and what would come of it. */

import { Command, Option } from 'commander';
import { describeGuestVbd, formatInfo, withGuest } from '../survey/index.ts';
import { addGuestOptions, type GuestFlags, guestChoice, print } from './guest-options.ts';
import { wholeNumber } from './option-values.ts';

interface Flags extends GuestFlags {
  readonly queues?: number;
  readonly ringPageOrder?: number;
}

export function infoCommand(): Command {
  const command = new Command('info')
    .description("what a vbd's backend offers, and what `serve` would negotiate")
    .argument('<vbd>', "xvdb, /dev/xvdb, 51728, or the backend's params")
    .addOption(
      new Option('--queues <n>', 'rings that `serve` would ask for').argParser(
        wholeNumber('--queues', 1, 64),
      ),
    )
    .addOption(
      new Option('--ring-page-order <n>', 'a ring has 2^N pages at most').argParser(
        wholeNumber('--ring-page-order', 0, 4),
      ),
    );
  return addGuestOptions(command).action(run);
}

async function run(vbd: string, flags: Flags): Promise<void> {
  const use = { queues: flags.queues, ringPageOrder: flags.ringPageOrder };
  const info = await withGuest(guestChoice([vbd], flags), (guest) =>
    describeGuestVbd(guest, vbd, use),
  );
  print(info, flags.json === true, formatInfo);
}
