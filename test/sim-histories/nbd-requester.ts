/**
 * An NBD client in the transmission phase, at the other end of a loopback socket: sends requests
 * byte by byte as the seed decides, takes replies fast or slowly, may leave at any moment, and
 * checks each reply against the model. A request that is answered twice, or with bytes that the
 * model does not allow, ends the history.
 */

import type { ExportInfo } from 'nbd-server-ts/protocol';
import type { ReplyForm } from '../../src/dataplane/reply-header.ts';
import { Cmd, CmdFlag, Errno } from '../support/nbd-wire.ts';
import { checkData, checkStatus } from './answer-checks.ts';
import { DISCARDED_BYTE } from './cached-disk.ts';
import type { ClientPlan, ClientWorld } from './client-world.ts';
import { LoopbackSocket, type SocketPeer } from './loopback-socket.ts';
import { constantBytes, drawPayload, type Payload } from './payloads.ts';
import { type PendingRequest, takePiece } from './pending-request.ts';
import { parseReply, type Reply } from './reply-parser.ts';
import { commandName, encodeHeader } from './request-header.ts';

/** One of so many reads must be answered in one piece. */
const WHOLE_EVERY = 5;

export class NbdRequester implements SocketPeer {
  readonly id: number;
  readonly socket: LoopbackSocket;
  readonly info: ExportInfo;
  readonly agreement: ReplyForm;
  readonly #plan: ClientPlan;
  readonly #world: ClientWorld;
  readonly #pending = new Map<number, PendingRequest>();
  #cookies = 0;
  #left = 0;
  #inbox: Buffer = Buffer.alloc(0);
  #isArriving = false;
  #isActing = false;
  #isDrinking = false;
  /** It has said goodbye, or its connection is over. */
  isOver = false;
  hasLeft = false;
  answers = 0;
  errors = 0;

  constructor(world: ClientWorld, plan: ClientPlan, id: number, info: ExportInfo) {
    this.#world = world;
    this.#plan = plan;
    this.id = id;
    this.info = info;
    this.agreement = plan.agreement;
    this.socket = new LoopbackSocket(this);
    this.#left = plan.requests;
    if (plan.isSlowReader) this.socket.roomBytes = 0;
    this.#drink();
    this.#actLater();
  }

  /** Requests that were sent, at least in part, and not answered. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Whether it wants nothing more, and was answered all it asked. */
  get isContent(): boolean {
    return this.isOver || (this.#left === 0 && this.#pending.size === 0);
  }

  describePending(): string {
    return [...this.#pending]
      .map(([cookie, { command, offset, lengthBytes }]) => {
        return `#${cookie} command ${command} at ${offset}+${lengthBytes}`;
      })
      .join(', ');
  }

  /** Sends no more requests. */
  stop(): void {
    this.#left = 0;
  }

  /** Closes its side once everything is answered, as a client does that is done. */
  sayGoodbye(): void {
    this.hasLeft = true;
    this.#left = 0;
    this.socket.roomBytes = Number.POSITIVE_INFINITY;
    this.socket.deliver(this.socket.underwayBytes);
    this.socket.isEnded = true;
    this.#world.pokeLanes();
  }

  // --- sending

  #actLater(): void {
    if (this.#isActing || this.#left === 0) return;
    // One that may not ask for more waits for an answer.
    if (this.#pending.size >= this.#plan.maxInFlight) return;
    this.#isActing = true;
    const { scheduler } = this.#world;
    const delayMs = this.#plan.pauseMs * (0.1 + 1.8 * (scheduler.random.u32() / 2 ** 32));
    scheduler.after(delayMs, () => this.#act());
  }

  #act(): void {
    this.#isActing = false;
    if (this.isOver || this.#left === 0) return;
    const { random } = this.#world.scheduler;
    if (random.chance(this.#plan.leaveRate)) {
      this.#leave();
      return;
    }
    while (this.#left > 0 && this.#pending.size < this.#plan.maxInFlight) {
      this.#left -= 1;
      this.#ask();
      if (random.chance(0.4)) break;
    }
    this.#arrive();
    this.#actLater();
  }

  /** Leaves with requests in flight, by a reset or by closing its side. */
  #leave(): void {
    const { scheduler } = this.#world;
    scheduler.trace(`client ${this.id}`, `leaves with ${this.#pending.size} in flight`);
    this.hasLeft = true;
    this.#left = 0;
    if (scheduler.random.chance(0.5)) {
      this.socket.isHungUp = true;
    } else {
      this.socket.roomBytes = Number.POSITIVE_INFINITY;
      if (scheduler.random.chance(0.5)) this.socket.deliver(this.socket.underwayBytes);
      else this.socket.cutInput();
      this.socket.isEnded = true;
    }
    this.#world.pokeLanes();
  }

  #ask(): void {
    const { random } = this.#world.scheduler;
    const kind = random.below(100);
    if (kind < 38) this.#read();
    else if (kind < 74) this.#write();
    else if (kind < 83) this.#writeZeroes();
    else if (kind < 90) this.#trim();
    else if (kind < 96 || !this.agreement.hasMetaContexts) this.#flush();
    else this.#status();
  }

  #read(): void {
    const { offset, lengthBytes } = this.#drawRange();
    const { model } = this.#world;
    const isWhole = this.agreement.isStructured && this.#cookies % WHOLE_EVERY === 0;
    this.#send(Cmd.READ, isWhole ? CmdFlag.DF : 0, offset, lengthBytes, undefined, {
      read: model.beginRead(),
    });
  }

  #write(): void {
    const { scheduler, model } = this.#world;
    const { offset, lengthBytes } = this.#drawRange();
    const payload = drawPayload(scheduler.random, lengthBytes);
    const write = model.beginWrite(offset, payload.bytes, false);
    this.#send(Cmd.WRITE, this.#drawFua(), offset, lengthBytes, payload, { write });
  }

  #writeZeroes(): void {
    const { model } = this.#world;
    const { offset, lengthBytes } = this.#drawRange();
    const write = model.beginWrite(offset, constantBytes(0, lengthBytes), false);
    this.#send(Cmd.WRITE_ZEROES, this.#drawFua(), offset, lengthBytes, undefined, { write });
  }

  #trim(): void {
    const { model, trimGranularityBytes: granularity } = this.#world;
    if (!this.info.canTrim || granularity === undefined) {
      this.#flush();
      return;
    }
    const { offset, lengthBytes } = this.#drawRange();
    // Only whole blocks may lose what they hold.
    const first = Math.ceil(offset / granularity) * granularity;
    const end = Math.floor((offset + lengthBytes) / granularity) * granularity;
    const write =
      end > first
        ? model.beginWrite(first, constantBytes(DISCARDED_BYTE, end - first), true)
        : undefined;
    this.#send(Cmd.TRIM, this.#drawFua(), offset, lengthBytes, undefined, { write });
  }

  #status(): void {
    const { offset, lengthBytes } = this.#drawRange();
    const flags = this.#world.scheduler.random.chance(0.3) ? CmdFlag.REQ_ONE : 0;
    const read = this.#world.model.beginRead();
    this.#send(Cmd.BLOCK_STATUS, flags, offset, Math.max(1, lengthBytes), undefined, { read });
  }

  #flush(): void {
    this.#send(Cmd.FLUSH, 0, 0, 0, undefined, {});
  }

  #drawFua(): number {
    return this.#world.scheduler.random.chance(0.2) ? CmdFlag.FUA : 0;
  }

  #drawRange(): { readonly offset: number; readonly lengthBytes: number } {
    const { scheduler, hotSpots } = this.#world;
    const { random } = scheduler;
    const { sizeBytes } = this.info;
    const isAligned = random.chance(0.5);
    const longest = random.pick([700, 700, 5_000, 5_000, 20_000, 70_000]);
    let lengthBytes = 1 + random.below(longest);
    if (random.chance(0.01)) lengthBytes = 0;
    let offset = random.chance(0.7)
      ? random.pick(hotSpots) + random.below(6_000) - 3_000
      : random.below(sizeBytes);
    if (isAligned) {
      const unit = random.pick([512, 4096]);
      offset = Math.floor(offset / unit) * unit;
      lengthBytes = Math.ceil(lengthBytes / unit) * unit;
    }
    offset = Math.max(0, Math.min(offset, sizeBytes - 1));
    return { offset, lengthBytes: Math.min(lengthBytes, sizeBytes - offset) };
  }

  #send(
    command: number,
    flags: number,
    offset: number,
    lengthBytes: number,
    payload: Payload | undefined,
    about: Partial<Pick<PendingRequest, 'write' | 'read'>>,
  ): void {
    this.#cookies += 1;
    const cookie = this.#cookies;
    const { isExtended } = this.agreement;
    const hasPayload = payload !== undefined;
    const header = encodeHeader(
      { command, flags, owner: this.id, cookie, offset, lengthBytes, hasPayload },
      isExtended,
    );
    this.#pending.set(cookie, {
      command,
      flags,
      offset,
      lengthBytes,
      isFua: (flags & CmdFlag.FUA) !== 0,
      write: about.write,
      read: about.read,
      beganAt: this.#world.model.now(),
      pieces: [],
    });
    this.socket.send(header.address, header.lengthBytes);
    if (payload !== undefined) this.socket.send(payload.address, payload.bytes.length);
    const { scheduler } = this.#world;
    if (scheduler.isTraced) {
      const name = `${commandName(command)}${(flags & CmdFlag.FUA) !== 0 ? ' FUA' : ''}`;
      scheduler.trace(`client ${this.id}`, `#${cookie} ${name} ${offset}+${lengthBytes}`);
    }
  }

  /** Lets bytes arrive at the lane: all that was sent, or piece by piece. */
  #arrive(): void {
    if (this.#isArriving || this.isOver) return;
    const { scheduler } = this.#world;
    const { random } = scheduler;
    const underway = this.socket.underwayBytes;
    if (underway === 0) return;
    const isPiece = this.#plan.isChoppy && random.chance(0.7);
    this.socket.deliver(isPiece ? 1 + random.below(Math.min(underway, 9_000)) : underway);
    this.#world.pokeLanes();
    if (this.socket.underwayBytes === 0) return;
    this.#isArriving = true;
    scheduler.after(scheduler.latencyMs() * 3, () => {
      this.#isArriving = false;
      this.#arrive();
    });
  }

  // --- replies

  /** A slow reader makes some room for replies, later, when there is little. */
  #drink(): void {
    if (this.#isDrinking || this.socket.roomBytes >= 4_000) return;
    this.#isDrinking = true;
    const { scheduler } = this.#world;
    scheduler.after(scheduler.latencyMs() * 10, () => {
      this.#isDrinking = false;
      if (this.isOver || this.hasLeft) return;
      this.socket.roomBytes += 1 + scheduler.random.below(9_000);
      this.#world.pokeLanes();
      this.#drink();
    });
  }

  received(bytes: Buffer): void {
    this.#inbox =
      this.#inbox.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#inbox, bytes]);
    for (;;) {
      const reply = parseReply(this.#inbox, this.agreement, (cookie) => {
        const pending = this.#pending.get(cookie);
        return pending?.command === Cmd.READ ? pending.lengthBytes : 0;
      });
      if (reply === undefined) break;
      if (typeof reply === 'string') {
        this.#world.report(`client ${this.id} was sent ${reply}`);
        return;
      }
      this.#inbox = this.#inbox.subarray(reply.totalBytes);
      this.#answered(reply);
    }
    this.#drink();
    this.#actLater();
  }

  #answered(reply: Reply): void {
    const { cookie, errno } = reply;
    const { model, scheduler } = this.#world;
    const pending = this.#pending.get(cookie);
    if (reply.owner !== this.id || pending === undefined) {
      const why = cookie <= this.#cookies ? 'was answered twice' : 'was never asked';
      this.#world.report(`client ${this.id}: request #${cookie} ${why}`);
      return;
    }
    const wrong = takePiece(pending, reply);
    if (wrong !== undefined) {
      this.#world.report(`client ${this.id}: READ #${cookie} is wrong: ${wrong}`);
      return;
    }
    if (!reply.isLast) return;
    this.#pending.delete(cookie);
    this.answers += 1;
    if (scheduler.isTraced) {
      scheduler.trace(`client ${this.id}`, `#${cookie} answered ${errno === 0 ? 'ok' : errno}`);
    }
    if (errno !== 0) this.errors += 1;
    if (errno !== 0 && !this.#world.mayAnswer(this, errno)) {
      this.#world.report(
        `client ${this.id}: request #${cookie} (${commandName(pending.command)} ` +
          `${pending.offset}+${pending.lengthBytes}) was answered with error ${errno}`,
      );
    }
    if (pending.write !== undefined) model.endWrite(pending.write, errno === 0, pending.isFua);
    if (pending.command === Cmd.FLUSH && errno === Errno.OK) model.endFlush(pending.beganAt);
    if (pending.read !== undefined) this.#checkRead(pending, pending.read, reply);
  }

  #checkRead(
    pending: PendingRequest,
    read: { readonly beganAt: number },
    { errno, cookie, data: lastData }: Reply,
  ): void {
    const { model, isDataTrusted } = this.#world;
    model.endRead(read);
    if (errno !== 0 || !isDataTrusted) return;
    const { command, offset, lengthBytes, pieces } = pending;
    const data = command === Cmd.READ ? Buffer.concat(pieces) : lastData;
    const question = { offset, lengthBytes, beganAt: read.beganAt };
    const wrong =
      command === Cmd.BLOCK_STATUS
        ? checkStatus(data, this.agreement.isExtended, question, model)
        : checkData(data, question, model);
    if (wrong === undefined) return;
    this.#world.report(`client ${this.id}: ${commandName(command)} #${cookie} is wrong: ${wrong}`);
  }

  // --- the end

  /** The process at the other end has died. */
  lose(): void {
    this.hasLeft = true;
    this.isOver = true;
    this.socket.close();
    for (const { read } of this.#pending.values()) {
      if (read !== undefined) this.#world.model.endRead(read);
    }
  }

  /** The lane has closed the connection. */
  closed(reason: string): void {
    this.isOver = true;
    this.#world.scheduler.trace(
      `client ${this.id}`,
      `closed: ${reason}; ${this.#pending.size} unanswered`,
    );
    const isOwnFault = reason === 'client does not read its replies' && this.#plan.isSlowReader;
    const isExpected = this.hasLeft || reason === 'server stops' || isOwnFault;
    if (!isExpected || reason === 'client sent something that is no request') {
      this.#world.report(`client ${this.id} lost its connection: ${reason}`);
    }
    for (const { read } of this.#pending.values()) {
      if (read !== undefined) this.#world.model.endRead(read);
    }
    this.#world.left(this);
  }

  /** What its unanswered writes may have done, they have done. */
  abandonedAreOver(): void {
    for (const { write } of this.#pending.values()) {
      if (write !== undefined) this.#world.model.endWrite(write, false, false);
    }
    this.#pending.clear();
  }
}
