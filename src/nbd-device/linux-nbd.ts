/**
 * The NBD driver of Linux, through its family of generic netlink (linux/nbd-netlink.h). Unlike the
 * ioctls it lets a device outlive its connection: with a dead connection timeout, requests wait for
 * NBD_CMD_RECONFIGURE to bring a new one.
 */

import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { DaemonError } from '../daemon/index.ts';
import { Errno, NetlinkSocket, type ReadableWatch, SysError, watchReadable } from '../sys/index.ts';
import {
  type Attribute,
  decodeAttributes,
  decodeMessages,
  encodeCommand,
  type Message,
  numberOf,
  type ReceivedAttributes,
  textOf,
} from './generic-netlink.ts';
import type { KernelNbd, NbdConnection } from './kernel-nbd.ts';

// The family of families (linux/genetlink.h).
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const CTRL_ATTR_MCAST_GROUPS = 7;
const CTRL_ATTR_MCAST_GRP_NAME = 1;
const CTRL_ATTR_MCAST_GRP_ID = 2;

const FAMILY_NAME = 'nbd';
const GROUP_NAME = 'nbd_mc_group';

const NbdGenl = { CONNECT: 1, DISCONNECT: 2, RECONFIGURE: 3, LINK_DEAD: 4 } as const;
const NbdAttr = {
  INDEX: 1,
  SIZE_BYTES: 2,
  BLOCK_SIZE_BYTES: 3,
  SERVER_FLAGS: 5,
  SOCKETS: 7,
  DEAD_CONN_TIMEOUT: 8,
  BACKEND_IDENTIFIER: 10,
} as const;
/**
 * How long after it was sent the driver looks at a request, and again and again: one that went into
 * a connection that is gone is then sent into the present one. No other request is touched.
 */
const LOOK_MS = 5_000;
/** The first Linux whose driver surely does so. */
const LOOKS_SINCE = [5, 10] as const;
/** The kernel's own. */
const DEFAULT_LOOK_MS = 30_000;
const NBD_SOCK_ITEM = 1;
const NBD_SOCK_FD = 1;

/** The driver of the kernel that we run on. @throws DaemonError when it is not loaded */
export function openLinuxNbd(): KernelNbd {
  const commands = new NetlinkSocket();
  try {
    return new LinuxNbd(commands);
  } catch (error) {
    commands.close();
    if (error instanceof SysError && error.errno === Errno.ENOENT) {
      throw new DaemonError('the kernel has no NBD driver: load it with: modprobe nbd', {
        cause: error,
      });
    }
    throw error;
  }
}

class LinuxNbd implements KernelNbd {
  readonly #commands: NetlinkSocket;
  readonly #family: number;
  readonly #group: number;
  #events: { readonly socket: NetlinkSocket; readonly watch: ReadableWatch } | undefined;
  #sequence = 0;

  constructor(commands: NetlinkSocket) {
    this.#commands = commands;
    const name = { type: CTRL_ATTR_FAMILY_NAME, text: FAMILY_NAME };
    const answer = this.#send(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, [name]);
    const family = numberOf(answer?.get(CTRL_ATTR_FAMILY_ID));
    const groups = decodeAttributes(answer?.get(CTRL_ATTR_MCAST_GROUPS) ?? new Uint8Array(0));
    const group = [...groups.values()]
      .map(decodeAttributes)
      .find((each) => textOf(each.get(CTRL_ATTR_MCAST_GRP_NAME)) === GROUP_NAME);
    const groupId = numberOf(group?.get(CTRL_ATTR_MCAST_GRP_ID));
    if (family === undefined || groupId === undefined) {
      throw new DaemonError(
        "the kernel's NBD driver is too old: it has no events (Linux 4.12 has)",
      );
    }
    this.#family = family;
    this.#group = groupId;
  }

  connect(index: number, connection: NbdConnection, waitSeconds: number, owner: string): void {
    this.#command(NbdGenl.CONNECT, [
      { type: NbdAttr.INDEX, u32: index },
      { type: NbdAttr.SERVER_FLAGS, u64: BigInt(connection.flags) },
      { type: NbdAttr.DEAD_CONN_TIMEOUT, u64: BigInt(waitSeconds) },
      { type: NbdAttr.BACKEND_IDENTIFIER, text: owner },
      ...attributesOf(connection),
    ]);
    setLookMs(index, LOOK_MS);
    // Whoever opens it first has the kernel read its partition table.
    closeSync(openSync(`/dev/nbd${index}`, 'r'));
  }

  reconnect(index: number, connection: NbdConnection, owner: string): void {
    this.#command(NbdGenl.RECONFIGURE, [
      { type: NbdAttr.INDEX, u32: index },
      { type: NbdAttr.BACKEND_IDENTIFIER, text: owner },
      ...attributesOf(connection),
    ]);
    // Whoever connected it first may not have done so.
    setLookMs(index, LOOK_MS);
  }

  disconnect(index: number): void {
    this.#command(NbdGenl.DISCONNECT, [{ type: NbdAttr.INDEX, u32: index }]);
    setLookMs(index, DEFAULT_LOOK_MS);
  }

  ownerOf(index: number): string | undefined {
    const folder = `/sys/block/nbd${index}`;
    if (!existsSync(folder)) {
      throw new DaemonError(
        `there is no /dev/nbd${index}: the kernel makes as many as nbds_max= of its module nbd says`,
      );
    }
    if (!existsSync(`${folder}/pid`)) return undefined;
    try {
      return readFileSync(`${folder}/backend`, 'utf8').trim();
    } catch {
      return ''; // Connected without a name.
    }
  }

  onLost(callback: (index: number) => void): void {
    const socket = new NetlinkSocket();
    socket.join(this.#group);
    const watch = watchReadable(socket.fd, () => {
      for (const message of receiveAll(socket)) {
        if (message.kind !== 'command' || message.command !== NbdGenl.LINK_DEAD) continue;
        const index = numberOf(message.attributes.get(NbdAttr.INDEX));
        if (index !== undefined) callback(index);
      }
      watch.rearm();
    });
    this.#events = { socket, watch };
  }

  close(): void {
    this.#events?.watch.stop();
    this.#events?.socket.close();
    this.#events = undefined;
    this.#commands.close();
  }

  #command(command: number, attributes: readonly Attribute[]): void {
    try {
      this.#send(this.#family, command, attributes);
    } catch (error) {
      if (error instanceof SysError && error.errno === Errno.EPERM) {
        throw new DaemonError('only root may configure NBD devices of the kernel', {
          cause: error,
        });
      }
      throw error;
    }
  }

  /** Sends a command; what the kernel answered, beside that it is done. @throws SysError */
  #send(
    family: number,
    command: number,
    attributes: readonly Attribute[],
  ): ReceivedAttributes | undefined {
    const sequence = ++this.#sequence;
    this.#commands.send(encodeCommand({ family, command, sequence, attributes }));
    let answer: ReceivedAttributes | undefined;
    for (;;) {
      // The kernel has answered by now: nothing to wait for.
      const messages = receiveAll(this.#commands);
      if (messages.length === 0) throw new SysError('recv', Errno.EAGAIN, 'netlink');
      for (const message of messages) {
        if (message.kind === 'command') {
          answer = message.attributes;
        } else if (message.sequence === sequence) {
          if (message.errno === 0) return answer;
          throw new SysError(commandNames.get(command) ?? 'netlink', message.errno);
        }
      }
    }
  }
}

const commandNames: ReadonlyMap<number, string> = new Map(
  Object.entries(NbdGenl).map(([name, number]) => [number, `NBD_CMD_${name}`]),
);

function attributesOf({ fd, sizeBytes, blockBytes }: NbdConnection): Attribute[] {
  const socket = { type: NBD_SOCK_ITEM, nested: [{ type: NBD_SOCK_FD, u32: fd }] };
  return [
    { type: NbdAttr.SIZE_BYTES, u64: sizeBytes },
    { type: NbdAttr.BLOCK_SIZE_BYTES, u64: BigInt(blockBytes) },
    { type: NbdAttr.SOCKETS, nested: [socket] },
  ];
}

/**
 * How often the driver looks at requests that are not answered. Older drivers do not send them
 * again then: they fail them, and must not do so any sooner.
 */
function setLookMs(index: number, ms: number): void {
  if (!isAtLeast(LOOKS_SINCE, release())) return;
  try {
    writeFileSync(`/sys/block/nbd${index}/queue/io_timeout`, String(ms));
  } catch {
    // A sandbox may not let us: it takes longer then.
  }
}

/** Whether a release of Linux, such as 6.1.0-56-amd64, is `least` or later. */
export function isAtLeast(least: readonly [major: number, minor: number], text: string): boolean {
  const [major = 0, minor = 0] = text.split('.').map((part) => Number.parseInt(part, 10));
  return major > least[0] || (major === least[0] && minor >= least[1]);
}

function receiveAll(socket: NetlinkSocket): Message[] {
  const messages: Message[] = [];
  for (let bytes = socket.receive(); bytes !== undefined; bytes = socket.receive()) {
    messages.push(...decodeMessages(bytes));
  }
  return messages;
}
