/**
 * A PV guest of dom0's, made by xl from dom0's own kernel and files. Its disks are loop devices of
 * dom0's, served by xen-blkback. Inside it runs test/xen/guest/agent.ts.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import {
  AGENT_PATH,
  type AgentCommand,
  type AgentCommands,
  type AgentRequest,
  type AgentResponse,
} from '../guest/protocol.ts';
import { eventually, run } from './commands.ts';
import type { Lab } from './scenario.ts';
import { storeReadIfAny, storeWait, storeWrite } from './store.ts';

const RAMDISK = '/tmp/guest.cpio';
const BOOT_TIMEOUT_MS = 600_000;
const COMMAND_TIMEOUT_MS = 600_000;
const XL_TIMEOUT_MS = 600_000;

/** What a guest is made of. */
export interface GuestMachine {
  readonly ramdisk: string;
  readonly memoryMib: number;
  /** As {@link diskSpecification} writes them. */
  readonly disks: readonly string[];
}

/** A disk for a guest, e.g. `xvda`, on a loop device. */
export function diskSpecification(name: string, loopDevice: string): string {
  return (
    `format=raw,vdev=${name},access=rw,backendtype=phy,` +
    `script=/etc/xen/scripts/block-lab,target=${loopDevice}`
  );
}

export class GuestDomain {
  readonly name: string;
  #lastRequestId = 0;
  /** As far as it was asked for: xl takes long to answer. */
  #knownDomid: number | undefined;

  private constructor(name: string) {
    this.name = name;
  }

  /**
   * Creates the guest from dom0's own files and waits until its agent answers. Destroyed at the
   * end.
   */
  static async create(lab: Lab, name: string, disks: readonly string[]): Promise<GuestDomain> {
    const packMs = Date.now();
    await packRamdisk();
    lab.step(`the guest's first file system is packed: ${Date.now() - packMs} ms`);
    const guest = new GuestDomain(name);
    lab.cleanUp(() => guest.destroy());
    await guest.start(lab, { ramdisk: RAMDISK, memoryMib: 640, disks });
    return guest;
  }

  /** A guest that is not there yet. */
  static named(name: string): GuestDomain {
    return new GuestDomain(name);
  }

  /**
   * Creates the domain and waits until its agent answers. When the guest shuts down or reboots,
   * what XenStore has of it stays, for whoever wants to look.
   */
  async start(lab: Lab, { ramdisk, memoryMib, disks }: GuestMachine): Promise<void> {
    const config = `/tmp/${this.name}.cfg`;
    writeFileSync(
      config,
      [
        `name = "${this.name}"`,
        'type = "pv"',
        'kernel = "/boot/vmlinux"',
        `ramdisk = "${ramdisk}"`,
        'extra = "console=hvc0 rdinit=/init lab.role=guest mitigations=off norandmaps loglevel=5"',
        `memory = ${memoryMib}`,
        'vcpus = 1',
        'on_poweroff = "preserve"',
        'on_reboot = "preserve"',
        `disk = [ ${disks.map((disk) => `"${disk}"`).join(', ')} ]`,
      ].join('\n'),
    );
    this.#lastRequestId = 0;
    this.#knownDomid = undefined;
    const startMs = Date.now();
    await xl('create', config);
    const createdMs = Date.now() - startMs;
    await this.#waitForAgent(lab);
    const upMs = Date.now() - startMs;
    const domain = `domain ${this.#knownDomid}`;
    lab.step(`guest ${this.name}: ${domain}, made in ${createdMs} ms, up after ${upMs} ms`);
  }

  /** Ends the domain at once, or clears away one that has shut down. */
  async destroy(): Promise<void> {
    await xl('destroy', this.name);
  }

  /** Waits until the guest has shut down by itself: its processors run no more. */
  async waitForShutdown(timeoutMs: number): Promise<void> {
    await storeWait('@releaseDomain', timeoutMs, undefined, async () => {
      const state = (await xl('list', this.name)).trim().split('\n').at(-1)?.split(/\s+/)[4];
      return state?.includes('s') === true ? true : undefined;
    });
  }

  /** Its number at present, which a restore changes. */
  async domid(): Promise<number> {
    this.#knownDomid = Number((await xl('domid', this.name)).trim());
    return this.#knownDomid;
  }

  /** Asks the agent, and waits for its answer, also when the guest is restored meanwhile. */
  async ask<Command extends AgentCommand>(
    command: Command,
    args: AgentCommands[Command]['args'],
    timeoutMs: number = COMMAND_TIMEOUT_MS,
  ): Promise<AgentCommands[Command]['result']> {
    const request: AgentRequest = { id: ++this.#lastRequestId, command, args };
    const path = await this.#agentPath();
    const ask = (): Promise<void> => storeWrite({ [`${path}/request`]: JSON.stringify(request) });
    const answer = await storeWait(`${path}/response`, timeoutMs, ask, async () => {
      const text = await storeReadIfAny(`${path}/response`);
      const response = text === undefined ? undefined : (JSON.parse(text) as AgentResponse);
      return response?.id === request.id ? response : undefined;
    }).catch((error: unknown) => {
      throw new Error(`the guest does not answer ${command}`, { cause: error });
    });
    if (!answer.ok) throw new Error(`in the guest, ${command}: ${answer.error}`);
    return answer.result as AgentCommands[Command]['result'];
  }

  /** Waits until the load in the guest has had `count` more answers. */
  async waitForProgress(count: number): Promise<void> {
    const { completed: before } = await this.ask('loadState', null);
    await eventually(`${count} more requests are answered`, COMMAND_TIMEOUT_MS, async () => {
      const { completed, failure } = await this.ask('loadState', null);
      if (failure !== null) throw new Error(`the load in the guest: ${failure}`);
      return completed >= before + count ? true : undefined;
    });
  }

  /** What the guest has printed on its console. */
  consoleText(): string {
    return readFileSync(`/var/log/xen/guest-${this.name}.log`, 'utf8');
  }

  async #agentPath(): Promise<string> {
    return `/local/domain/${this.#knownDomid ?? (await this.domid())}/${AGENT_PATH}`;
  }

  async #waitForAgent(lab: Lab): Promise<void> {
    const path = await this.#agentPath();
    await storeWait(`${path}/ready`, BOOT_TIMEOUT_MS, undefined, async () =>
      (await storeReadIfAny(`${path}/ready`)) === '1' ? true : undefined,
    ).catch((error: unknown) => {
      lab.step(`the guest's console:\n${this.consoleText().slice(-4000)}`);
      throw error;
    });
  }
}

/** Xen's toolstack; rejects with what it said. */
export function xl(...args: string[]): Promise<string> {
  return run('timeout', String(XL_TIMEOUT_MS / 1000), 'xl', ...args);
}

/** dom0's own files as the guest's first file system, once. */
function packRamdisk(): Promise<void> {
  packed ??= (async () => {
    const withContent = 'bin sbin lib lib64 usr etc var init opt';
    const empty = 'proc sys dev run tmp root mnt';
    const names = `find ${withContent} -xdev; for name in ${empty}; do echo $name; done`;
    await run('sh', '-c', `cd / && { ${names}; } | cpio -o -H newc > ${RAMDISK}`);
  })();
  return packed;
}

let packed: Promise<void> | undefined;
