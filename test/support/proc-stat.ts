// What Linux says about a running process in /proc (proc(5)): CPU time, memory, descriptors.
import { readdirSync, readFileSync } from 'node:fs';

/** The kernel reports CPU time in ticks of USER_HZ, which is 100 on every Linux that runs Node. */
const MS_PER_TICK = 10;

/** CPU time that a server used, in milliseconds. */
export interface CpuTime {
  /** The whole process with its ended threads and children. */
  readonly totalMs: number;
  /** The part of it that living threads used whose name matches. */
  readonly apartMs: number;
}

interface StatTimes {
  readonly name: string;
  /** utime + stime. */
  readonly ownTicks: number;
  /** cutime + cstime: children that ended and were waited for. */
  readonly childTicks: number;
}

/** Parses one line of /proc/PID/stat. The name stands in brackets and may hold spaces itself. */
function parseStat(line: string): StatTimes {
  const open = line.indexOf('(');
  const close = line.lastIndexOf(')');
  const fields = line.slice(close + 2).split(' ');
  // Fields 14 to 17 of the line; the first after the name is field 3.
  const ticks = fields.slice(11, 15).map(Number);
  const [utime = 0, stime = 0, cutime = 0, cstime = 0] = ticks;
  return {
    name: line.slice(open + 1, close),
    ownTicks: utime + stime,
    childTicks: cutime + cstime,
  };
}

function childPids(pid: number): number[] {
  const pids: number[] = [];
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const text = readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8');
    for (const word of text.split(' ')) if (word !== '') pids.push(Number(word));
  }
  return pids.sort((a, b) => a - b);
}

/** CPU of a process and its children, for servers that fork one for each connection. */
function treeTicks(pid: number): number {
  const stat = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  let ticks = stat.ownTicks + stat.childTicks;
  for (const child of childPids(pid)) ticks += treeTicks(child);
  return ticks;
}

/**
 * CPU time used so far by a process, its threads (ended ones too) and its children. The time of
 * the threads whose name begins with `apartPrefix` is reported beside it as well.
 *
 * @throws Error when there is no such process.
 */
export function readCpuTime(pid: number, apartPrefix: string): CpuTime {
  let totalTicks = -1;
  // A child that ends while we read would be counted twice or not at all: read again.
  for (let attempt = 0; attempt < 10 && totalTicks < 0; attempt++) {
    const before = childPids(pid).join();
    try {
      totalTicks = treeTicks(pid);
    } catch (error) {
      if (attempt === 9) throw error;
      totalTicks = -1;
    }
    if (childPids(pid).join() !== before) totalTicks = -1;
  }
  if (totalTicks < 0) throw new Error(`process ${pid} starts and ends children all the time`);
  let apartTicks = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = parseStat(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8'));
    if (stat.name.startsWith(apartPrefix)) apartTicks += stat.ownTicks;
  }
  return { totalMs: totalTicks * MS_PER_TICK, apartMs: apartTicks * MS_PER_TICK };
}

/** What all processors did since the start, in ticks. */
export interface MachineTime {
  readonly totalTicks: number;
  /** Something wanted to run, and the hypervisor let another machine run. */
  readonly stolenTicks: number;
}

/** The first line of /proc/stat. */
export function readMachineTime(): MachineTime {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  // user nice system idle iowait irq softirq steal; what follows is part of the first two.
  const ticks = line.split(/\s+/).slice(1, 9).map(Number);
  return { totalTicks: ticks.reduce((sum, one) => sum + one, 0), stolenTicks: ticks[7] ?? 0 };
}

/** Names of the living threads, as in /proc/PID/task/N/comm. */
export function readThreadNames(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).map((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/comm`, 'utf8').trim(),
  );
}

/** Scheduling policy of the first thread with that name, as in sched(7); undefined without one. */
export function readThreadPolicy(pid: number, name: string): number | undefined {
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const line = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    if (parseStat(line).name !== name) continue;
    // Field 41 of the line.
    return Number(line.slice(line.lastIndexOf(')') + 2).split(' ')[38]);
  }
  return undefined;
}

/** Resident memory now and the most there ever was, in bytes. */
export interface ResidentMemory {
  readonly nowBytes: number;
  readonly peakBytes: number;
}

/** Resident memory of one process (not of its children). */
export function readResidentMemory(pid: number): ResidentMemory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (key: string): number => {
    const found = new RegExp(`^${key}:\\s+(\\d+) kB$`, 'm').exec(status);
    if (!found?.[1]) throw new Error(`/proc/${pid}/status has no ${key}`);
    return Number(found[1]);
  };
  return { nowBytes: kib('VmRSS') * 1024, peakBytes: kib('VmHWM') * 1024 };
}

/** Resident memory of a process and its children, in bytes; shared pages count for each. */
export function readTreeResidentBytes(pid: number): number {
  try {
    let bytes = readResidentMemory(pid).nowBytes;
    for (const child of childPids(pid)) bytes += readTreeResidentBytes(child);
    return bytes;
  } catch {
    // The process ended between two looks.
    return 0;
  }
}

/** How many descriptors a process has open. */
export function countDescriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}
