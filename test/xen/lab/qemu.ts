/**
 * One boot of the lab under QEMU. What dom0 reports leaves it by its second serial line, which ends
 * in a Unix socket here; the first is the console. Nothing here decides whether the run was good:
 * see verdict.ts.
 */
import { spawn } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CpioArchive } from './cpio.ts';
import type { Image } from './image.ts';

export interface BootOptions {
  readonly image: Image;
  /** What dom0's init shall do. */
  readonly mode: string;
  /** Memory of the whole machine, and of dom0, in MiB. */
  readonly memoryMib: { readonly machine: number; readonly dom0: number };
  /** Without Node and the project the image is small and boots faster. */
  readonly withProject: boolean;
  /** Archives on top of the image's own. */
  readonly extraLayers?: readonly string[];
  /** The machine's clock counts instructions: what this machine does beside it changes nothing. */
  readonly isTimedByInstructions?: boolean;
  /** Further files for dom0, by absolute path. */
  readonly files?: Readonly<Record<string, string>>;
  /** Disks of dom0's, /dev/vda and on: raw images, which a run leaves as they are. */
  readonly disks?: readonly string[];
  readonly timeoutMs: number;
  /** After such a line the machine has {@link GRACE_MS} to go down. */
  isLastReport(line: string): boolean;
  onReport(line: string): void;
  onConsole(line: string): void;
}

export interface BootOutcome {
  /** QEMU's exit code; null when it was killed. */
  readonly exitCode: number | null;
  /** What killed it, if anything did. */
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  readonly reportLines: readonly string[];
  readonly consoleLines: readonly string[];
  readonly durationMs: number;
}

/** From dom0's last report to the end of QEMU. */
const GRACE_MS = 30_000;

const XEN_ARGUMENTS = 'console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning';
/**
 * Without mitigations: an emulated processor leaks nothing, and with them Xen changes page tables
 * at each system call, after which QEMU looks up every page anew. A program then starts four times
 * as slowly.
 */
const XEN_SHORTCUTS = 'spec-ctrl=no';
/**
 * Without address space randomisation: each program would bring its code, and that of libc, to
 * other addresses, and QEMU translate it once more and keep all of it. No comma may stand here: it
 * would end the module's arguments.
 */
const DOM0_ARGUMENTS = 'console=hvc0 rdinit=/init panic=1 mitigations=off norandmaps loglevel=5';

export async function boot(options: BootOptions): Promise<BootOutcome> {
  const folder = mkdtempSync(join(tmpdir(), 'xen-lab-'));
  const startMs = Date.now();
  const reportLines: string[] = [];
  const consoleLines: string[] = [];
  const timer = new Deadline(options.timeoutMs);
  const onReport = lineSplitter((line) => {
    reportLines.push(line);
    if (options.isLastReport(line)) timer.shorten(GRACE_MS);
    options.onReport(line);
  });
  const onConsole = lineSplitter((line) => {
    consoleLines.push(line);
    options.onConsole(line);
  });

  const reportSocket = join(folder, 'report.sock');
  const server = createServer((socket) => {
    socket.on('data', (chunk) => onReport(chunk.toString('utf8')));
    socket.on('error', () => socket.destroy());
  });
  try {
    await new Promise<void>((resolve) => server.listen(reportSocket, resolve));
    const initrd = join(folder, 'dom0.cpio');
    writeInitrd(initrd, options);
    const args = qemuArguments(options, initrd, reportSocket);
    const ending = await runQemu(args, timer, onConsole);
    onConsole('\n');
    return { ...ending, reportLines, consoleLines, durationMs: Date.now() - startMs };
  } finally {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

function writeInitrd(path: string, options: BootOptions): void {
  const own = new CpioArchive();
  own.addFile('/lab-mode', options.mode, 0o644);
  for (const [name, content] of Object.entries(options.files ?? {})) {
    own.addFile(name, content, 0o644);
  }
  const { toolsLayer, nodeLayer, projectLayer } = options.image;
  const layers = options.withProject ? [toolsLayer, nodeLayer, projectLayer] : [toolsLayer];
  for (const layer of [...layers, ...(options.extraLayers ?? [])]) {
    appendFileSync(path, readFileSync(layer));
  }
  appendFileSync(path, own.finish());
}

function qemuArguments(
  { image, memoryMib, isTimedByInstructions = false, disks = [] }: BootOptions,
  initrd: string,
  reportSocket: string,
): string[] {
  // No AVX: QEMU 7.2 mixes up its registers between domains, and programs crash in dom0 and guest.
  const machine = '-M pc -cpu Nehalem -smp 1';
  // 2^1 ns for each instruction: 500 million a second.
  const clock = isTimedByInstructions
    ? '-accel tcg,thread=single -icount shift=1'
    : '-accel tcg,thread=multi';
  // What is measured pays what it would on a machine in use.
  const shortcuts = isTimedByInstructions ? '' : ` ${XEN_SHORTCUTS}`;
  const memory = ['-m', String(memoryMib.machine)];
  const dom0Memory = `dom0_mem=${memoryMib.dom0}M,max:${memoryMib.dom0}M`;
  const noExtras = '-nographic -nodefaults -no-reboot -monitor none';
  const exitDevice = '-device isa-debug-exit,iobase=0xf4,iosize=4';
  const serialLines = ['-serial', 'stdio', '-serial', `unix:${reportSocket}`];
  const disk = (file: string, index: number): string[] => [
    '-drive',
    `file=${file},format=raw,if=none,id=disk${index},snapshot=on`,
    // A PV domain's addresses are not the machine's: the driver must ask for them.
    '-device',
    `virtio-blk-pci,drive=disk${index},disable-legacy=on,iommu_platform=on`,
  ];
  const dom0 = `${image.kernel} ${DOM0_ARGUMENTS},${initrd}`;
  const software = [
    '-kernel',
    image.xen,
    '-append',
    `${XEN_ARGUMENTS}${shortcuts} ${dom0Memory}`,
    '-initrd',
    dom0,
  ];
  const options = `${machine} ${clock} ${noExtras} ${exitDevice}`.split(' ');
  return [...options, ...memory, ...serialLines, ...disks.flatMap(disk), ...software];
}

function runQemu(
  args: string[],
  timer: Deadline,
  onOutput: (text: string) => void,
): Promise<Pick<BootOutcome, 'exitCode' | 'signal' | 'timedOut'>> {
  return new Promise((resolve, reject) => {
    const qemu = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let timedOut = false;
    timer.start(() => {
      timedOut = true;
      qemu.kill('SIGKILL');
    });
    // A lab that is interrupted leaves no QEMU behind.
    const killQemu = (): void => void qemu.kill('SIGKILL');
    process.once('exit', killQemu);
    qemu.stdout.on('data', (chunk: Buffer) => onOutput(chunk.toString('latin1')));
    qemu.stderr.on('data', (chunk: Buffer) => onOutput(`qemu: ${chunk.toString('utf8')}`));
    qemu.once('error', reject);
    qemu.once('close', (exitCode, signal) => {
      timer.stop();
      process.removeListener('exit', killQemu);
      resolve({ exitCode, signal, timedOut });
    });
  });
}

/** A time limit that can become shorter. */
class Deadline {
  #timeoutMs: number;
  #timer: NodeJS.Timeout | undefined;
  #onLate: () => void = () => {};

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  start(onLate: () => void): void {
    this.#onLate = onLate;
    this.#timer = setTimeout(onLate, this.#timeoutMs);
  }

  shorten(timeoutMs: number): void {
    this.stop();
    this.#timeoutMs = timeoutMs;
    this.start(this.#onLate);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** Calls `onLine` for each whole line of the text it is fed, without its line end. */
function lineSplitter(onLine: (line: string) => void): (text: string) => void {
  let rest = '';
  return (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const clean = line.replace(/\r/g, '');
      if (clean !== '') onLine(clean);
    }
  };
}
