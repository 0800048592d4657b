// Server programs behind one face, so that the same cases and measurements run against ours and
// against the servers that people use today.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { Daemon } from './daemon.ts';
import { eventually } from './eventually.ts';
import { BackgroundProgram, describeEnd, findProgram, killAtExit, mustRun } from './program.ts';

const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 60_000;

export interface ServeOptions {
  /** The raw disk image to serve. */
  readonly file: string;
  /** Path of the Unix socket to listen on. */
  readonly unixPath: string;
  /** Serve so that writes are refused. */
  readonly isReadOnly?: boolean;
  /** Further arguments, in the server's own words. */
  readonly extraArgs?: readonly string[];
}

export interface RunningServer {
  readonly uri: string;
  readonly pid: number;
  /** What the server printed, for failure reports. */
  readonly output: string;
  /** Undefined while it runs, else a few words on how it ended. */
  readonly endedHow: string | undefined;
  /** Ends the server. Rejects when that goes wrong in a way that its users would mind. */
  stop(): Promise<void>;
}

export interface ServerKind {
  /** As it appears in reports. */
  readonly name: string;
  /** The programs that must be installed. */
  readonly needs: readonly string[];
  /** The Debian package that brings them. */
  readonly debianPackage: string;
  start(options: ServeOptions): Promise<RunningServer>;
}

/** URI of the default export on a Unix socket. */
export function unixUri(socketPath: string, exportName = ''): string {
  return `nbd+unix:///${encodeURIComponent(exportName)}?socket=${socketPath}`;
}

/** Whether something accepts connections there; undefined for no, as `eventually` wants it. */
function canConnect(socketPath: string): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(socketPath);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(undefined));
  });
}

async function waitForSocket(program: BackgroundProgram, socketPath: string): Promise<void> {
  await eventually(`a server on ${socketPath}`, READY_TIMEOUT_MS, () =>
    program.result ? true : canConnect(socketPath),
  );
  if (program.result) {
    throw new Error(`the server ended at once: ${describeEnd(program.result)}\n${program.stderr}`);
  }
}

async function startProgram(
  command: string,
  args: readonly string[],
  unixPath: string,
): Promise<RunningServer> {
  rmSync(unixPath, { force: true });
  const program = new BackgroundProgram(findProgram(command) ?? command, args);
  try {
    await waitForSocket(program, unixPath);
  } catch (error) {
    program.kill('SIGKILL');
    throw error;
  }
  return {
    uri: unixUri(unixPath),
    pid: program.pid,
    get output(): string {
      return program.stdout + program.stderr;
    },
    get endedHow(): string | undefined {
      return program.result && describeEnd(program.result);
    },
    async stop(): Promise<void> {
      program.kill('SIGTERM');
      await program.waitForEnd(STOP_TIMEOUT_MS);
    },
  };
}

/** The product on its simulated Xen host: each byte takes the whole way over the ring. */
export const xenblkNbd: ServerKind = {
  name: 'xenblk-nbd',
  needs: [],
  debianPackage: '',
  async start(options) {
    const args = ['--simulate', options.file, '--unix', options.unixPath];
    if (options.isReadOnly) args.push('--read-only');
    const daemon = await Daemon.start([...args, ...(options.extraArgs ?? [])]);
    return {
      uri: unixUri(options.unixPath),
      pid: daemon.pid,
      get output(): string {
        return daemon.output;
      },
      get endedHow(): string | undefined {
        return daemon.result && describeEnd(daemon.result);
      },
      stop: () => daemon.stop(),
    };
  },
};

export const nbdkitFile: ServerKind = {
  name: 'nbdkit file',
  needs: ['nbdkit'],
  debianPackage: 'nbdkit',
  start(options) {
    const flags = options.isReadOnly ? ['-r'] : [];
    const extra = options.extraArgs ?? [];
    const args = ['-f', ...flags, '-U', options.unixPath, 'file', options.file, ...extra];
    return startProgram('nbdkit', args, options.unixPath);
  },
};

/** nbdkit serving its own memory, filled with the bytes of the file first. */
export const nbdkitMemory: ServerKind = {
  name: 'nbdkit memory',
  needs: ['nbdkit', 'nbdcopy', 'stat'],
  debianPackage: 'nbdkit libnbd-bin',
  async start(options) {
    const size = (await mustRun('stat', ['-c', '%s', options.file])).stdout.trim();
    const args = ['-f', '-U', options.unixPath, 'memory', size];
    const server = await startProgram('nbdkit', args, options.unixPath);
    try {
      await mustRun('nbdcopy', [options.file, server.uri]);
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  },
};

export const qemuNbd: ServerKind = {
  name: 'qemu-nbd',
  needs: ['qemu-nbd'],
  debianPackage: 'qemu-utils',
  start(options) {
    const flags = options.isReadOnly ? ['--read-only'] : [];
    const extra = options.extraArgs ?? [];
    const fixed = ['-f', 'raw', '--shared=16', '--persistent', '-k', options.unixPath];
    return startProgram('qemu-nbd', [...flags, ...fixed, ...extra, options.file], options.unixPath);
  },
};

export const nbdServer: ServerKind = {
  name: 'nbd-server',
  needs: ['nbd-server'],
  debianPackage: 'nbd-server',
  async start(options) {
    // Version 3.24 has no foreground option but -d, which serves a single client. So it goes to
    // the background, and its pid file says which process it is.
    const configPath = `${options.unixPath}.conf`;
    const pidPath = `${options.unixPath}.pid`;
    rmSync(options.unixPath, { force: true });
    rmSync(pidPath, { force: true });
    const readOnly = options.isReadOnly ? '  readonly = true\n' : '';
    writeFileSync(
      configPath,
      `[generic]\n  unixsock = ${options.unixPath}\n  allowlist = true\n` +
        `[disk]\n  exportname = ${options.file}\n  flush = true\n  fua = true\n${readOnly}`,
    );
    const command = findProgram('nbd-server') ?? 'nbd-server';
    await mustRun(command, ['-C', configPath, '-p', pidPath]);
    const pid = await eventually(`a number in ${pidPath}`, READY_TIMEOUT_MS, () => {
      const text = existsSync(pidPath) ? readFileSync(pidPath, 'utf8').trim() : '';
      return /^\d+$/.test(text) ? Number(text) : undefined;
    });
    const forget = killAtExit(pid);
    const isAlive = (): boolean => existsSync(`/proc/${pid}`);
    await eventually(`a server on ${options.unixPath}`, READY_TIMEOUT_MS, () =>
      canConnect(options.unixPath),
    );
    return {
      uri: unixUri(options.unixPath, 'disk'),
      pid,
      output: '',
      get endedHow(): string | undefined {
        return isAlive() ? undefined : 'ended by itself';
      },
      async stop(): Promise<void> {
        if (isAlive()) process.kill(pid, 'SIGTERM');
        await eventually(
          `end of nbd-server ${pid}`,
          STOP_TIMEOUT_MS,
          () => !isAlive() || undefined,
        );
        forget();
      },
    };
  },
};
