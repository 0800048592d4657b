// A control group with little memory (cgroups(7)), where this user may make one.
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How each version of control groups is laid out. */
const VERSIONS = [
  { root: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes', kills: 'memory.oom_control' },
  { root: '/sys/fs/cgroup', limit: 'memory.max', kills: 'memory.events' },
] as const;

export class MemoryCgroup {
  readonly #folder: string;
  readonly #killsFile: string;

  private constructor(folder: string, killsFile: string) {
    this.#folder = folder;
    this.#killsFile = killsFile;
  }

  /** A new group, or why there can be none. */
  static create(name: string, limitBytes: number): MemoryCgroup | string {
    let reason = 'no memory control groups here';
    for (const { root, limit, kills } of VERSIONS) {
      const folder = join(root, name);
      try {
        mkdirSync(folder);
      } catch (error) {
        reason = (error as Error).message;
        continue;
      }
      // The folder of another hierarchy has no such file; neither has one without that controller.
      if (existsSync(join(folder, limit))) {
        writeFileSync(join(folder, limit), String(limitBytes));
        return new MemoryCgroup(folder, join(folder, kills));
      }
      rmdirSync(folder);
      reason = `${folder} has no ${limit}`;
    }
    return reason;
  }

  /** A command in front of another one, which runs that in the group. */
  get runner(): readonly string[] {
    const procs = join(this.#folder, 'cgroup.procs');
    return ['sh', '-c', `echo $$ > ${procs} && exec "$@"`, 'sh'];
  }

  /** Processes that were killed since they could not have more. */
  get killCount(): number {
    const count = /^oom_kill (\d+)$/m.exec(readFileSync(this.#killsFile, 'utf8'))?.[1];
    if (count === undefined) throw new Error(`${this.#killsFile} tells of no kills`);
    return Number(count);
  }

  /** Processes of the group must have ended. */
  remove(): void {
    rmdirSync(this.#folder);
  }
}
