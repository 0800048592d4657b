/** Checks of the service: systemd runs, has our units, and none of them has failed. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Check, failed, ok, skipped, warning } from './check.ts';
import type { Machine } from './machine.ts';

/** Runs a program and resolves to what it prints; undefined when it fails or is not there. */
export type RunProgram = (command: string, args: readonly string[]) => Promise<string | undefined>;

/** Where systemd looks for units and their snippets, in its order. */
const UNIT_FOLDERS = [
  'etc/systemd/system',
  'run/systemd/system',
  'usr/local/lib/systemd/system',
  'usr/lib/systemd/system',
  'lib/systemd/system',
];
const UNIT = 'xenblk-nbd@.service';
const SYSTEMCTL_MS = 5_000;

/** Runs programs of this machine, bounded in time. */
export const runProgram: RunProgram = (command, args) =>
  new Promise((resolve) => {
    execFile(command, [...args], { timeout: SYSTEMCTL_MS }, (error, stdout) => {
      resolve(error === null ? stdout : undefined);
    });
  });

/** How systemd stands to this program. A machine without it is none the worse. */
export async function checkService(machine: Machine, run: RunProgram): Promise<Check[]> {
  const id = 'systemd';
  if (!existsSync(join(machine.root, 'run/systemd/system'))) {
    return [skipped(id, 'systemd does not run here')];
  }
  const folder = UNIT_FOLDERS.find((path) => existsSync(join(machine.root, path, UNIT)));
  if (folder === undefined) {
    const message = 'the units for systemd are not installed';
    return [warning(id, message, 'xenblk-nbd install-units && systemctl daemon-reload')];
  }
  const units = await run('systemctl', [
    'list-units',
    '--all',
    '--plain',
    '--no-legend',
    'xenblk-nbd*',
  ]);
  if (units === undefined) return [skipped(id, 'systemctl does not answer')];
  const checks = units
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([name]) => name !== undefined && /^xenblk-nbd.*\.(?:service|socket)$/.test(name))
    .map(([name = '', , active = '', sub = '']) => checkUnit(name, active, sub));
  const message = `the units for systemd are in /${folder}`;
  return [checks.length === 0 ? ok(id, `${message}; none is started`) : ok(id, message), ...checks];
}

function checkUnit(name: string, active: string, sub: string): Check {
  const id = `unit-${name}`;
  const message = `${name} is ${active} (${sub})`;
  return active === 'failed'
    ? failed(id, message, `journalctl -u ${name} says why; then systemctl restart ${name}`)
    : ok(id, message);
}
