// Runs last: whatever the others did, the kernel must have nothing to complain about.
import { strictEqual } from 'node:assert/strict';
import { findTrouble } from '../../lab/verdict.ts';
import { run } from '../commands.ts';
import type { Scenario } from '../scenario.ts';

export const logIsClean: Scenario = {
  name: "the kernel's log shows no BUG and no WARNING",
  async run(lab) {
    const lines = (await run('dmesg')).split('\n');
    strictEqual(findTrouble(lines), undefined);
    lab.step(`${lines.length} lines looked through`);
  },
};
