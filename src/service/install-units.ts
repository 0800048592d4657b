/**
 * `install-units`: writes the files of the service where systemd, udev and the kernel's tools look
 * for them. A file that somebody has changed is not overwritten unless that is asked for.
 */

import { mkdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DaemonError } from '../daemon/index.ts';
import { SERVICE_FILES } from './service-files.ts';

/** Where the package keeps them; this file runs from build/src/service. */
const SOURCES = new URL('../../../systemd/', import.meta.url);
/** The command as the files have it. */
const PACKAGED_COMMAND = '/usr/bin/xenblk-nbd';

/** How the files are to be installed. */
export interface InstallOptions {
  /** Files go below `PREFIX/lib`, as packages do with /usr; undefined for the machine's /etc. */
  readonly prefix: string | undefined;
  /** The command that units start: an absolute path, with arguments if it needs some. */
  readonly command: string;
  /** Overwrite what somebody has changed. */
  readonly isForced: boolean;
}

/** One file as it would be. */
export interface PlannedFile {
  readonly path: string;
  readonly content: string;
  /** `same`: nothing to do. `changed`: another content is there. */
  readonly state: 'new' | 'same' | 'changed';
}

/**
 * The command that units start when this program is where it is now: Node by its path, since a
 * service has no PATH of a login, and the program by the path that links lead to.
 */
export function thisCommand(program: string): string {
  const path = realpathSync(program);
  return [process.execPath, path].map(quote).join(' ');
}

/** systemd splits at spaces and knows quotes; percent signs and dollars mean something to it. */
function quote(path: string): string {
  const text = path.replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /[\s"'\\;]/.test(text) ? `"${text.replaceAll(/["\\]/g, '\\$&')}"` : text;
}

/** What would be written, and what is there now. Changes nothing. */
export function planUnits({ prefix, command }: InstallOptions): PlannedFile[] {
  const base = prefix === undefined ? '/etc' : join(prefix, 'lib');
  return SERVICE_FILES.map(({ source, target }) => {
    const text = readFileSync(new URL(source, SOURCES), 'utf8');
    const content = text.replaceAll(`=${PACKAGED_COMMAND} `, `=${command} `);
    const path = join(base, target);
    const before = readIfThere(path);
    return {
      path,
      content,
      state: before === undefined ? 'new' : before === content ? 'same' : 'changed',
    };
  });
}

/**
 * Writes them all, or none.
 *
 * @throws DaemonError when one of them was changed by somebody, or cannot be written
 */
export function installUnits(options: InstallOptions): PlannedFile[] {
  const files = planUnits(options);
  const changed = files.filter(({ state }) => state === 'changed').map(({ path }) => path);
  if (changed.length > 0 && !options.isForced) {
    throw new DaemonError(
      `${changed.join(', ')} ${changed.length === 1 ? 'differs' : 'differ'} from what would be ` +
        'written: see --dry-run, and give --force to overwrite',
    );
  }
  for (const { path, content, state } of files) {
    if (state === 'same') continue;
    try {
      mkdirSync(dirname(path), { recursive: true });
      // Whole or not at all: systemd may read it at any time.
      writeFileSync(`${path}.new`, content, { mode: 0o644 });
      renameSync(`${path}.new`, path);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const advice = code === 'EACCES' || code === 'EPERM' ? '; run it as root' : '';
      throw new DaemonError(`cannot write ${path}: ${message}${advice}`, { cause: error });
    }
  }
  return files;
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
