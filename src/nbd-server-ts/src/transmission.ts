// The transmission phase of one client: admits requests within the limits, has them carried out,
// sends the replies, and knows when all is done. Section "Transmission phase". Bytes are understood
// by RequestStream, requests are judged by checkRequest, carried out by executeRequest and answered
// by ReplySender.
//
// What holds: a request that was accepted is answered exactly once, or the connection is closed. A
// refused WRITE still has its payload read away, so the stream stays in step. While a limit is
// reached the stream is not read: the client is slowed down and memory stays bounded.

import type { Duplex } from 'node:stream';
import type { Clock } from './clock.ts';
import { NbdCmd, NbdErrno, nbdCmdName } from './constants.ts';
import type { NegotiationResult } from './handshake-state.ts';
import type { ServerLimits } from './limits.ts';
import type { BudgetHolder, MemoryBudget } from './memory-budget.ts';
import { ReplySender } from './reply-sender.ts';
import { createRequest, type NbdRequest, requestPayloadBytes } from './request.ts';
import { checkRequest, explainRefusal } from './request-check.ts';
import { type ExecutionTarget, executeRequest, type Outcome } from './request-execution.ts';
import { RequestStream } from './request-stream.ts';
import type { ServedExport } from './served-exports.ts';
import type { PeerLog } from './server-log.ts';

const NO_PAYLOAD = new Uint8Array(0);

/** What the connections of a server share. */
export interface TransmissionServices {
  readonly limits: ServerLimits;
  readonly budget: MemoryBudget;
  readonly clock: Clock;
}

/** What the owner of the stream is asked to do. */
export interface TransmissionOwner {
  /** Everything was answered: close after what is queued. */
  finish(): void;
  /** The client broke the protocol or a limit: close now. */
  drop(reason: string): void;
}

/** A request between its admission and its sent reply. */
interface InFlight {
  readonly request: Readonly<NbdRequest>;
  readonly costBytes: number;
  readonly source: 'reserve' | 'budget';
  isReleased: boolean;
}

/** Which piece of the stream comes next, or what stands in its way. */
type Stage = 'header' | 'payload' | 'drain' | 'awaitsReplies' | 'awaitsBudget' | 'over';

/** One client in the transmission phase. */
export class Transmission implements BudgetHolder {
  readonly #stream: Duplex;
  readonly #result: NegotiationResult<ServedExport>;
  readonly #target: ExecutionTarget;
  readonly #services: TransmissionServices;
  readonly #owner: TransmissionOwner;
  readonly #log: PeerLog;
  readonly #sender: ReplySender;
  readonly #requests: RequestStream;
  readonly #request: NbdRequest = createRequest();
  #stage: Stage = 'header';
  #refusal: NbdErrno = NbdErrno.OK;
  #admitted: InFlight | undefined;
  #inFlightRequests = 0;
  #inFlightBytes = 0;
  #reservedBytes = 0;
  #isShuttingDown = false;
  #isClosed = false;
  #isFinished = false;
  /** See BudgetHolder. */
  budgetedBytes = 0;
  lastProgressMs: number;
  /** Called whenever nothing is in flight any more. */
  onIdle: (() => void) | undefined;

  constructor(
    stream: Duplex,
    result: NegotiationResult<ServedExport>,
    services: TransmissionServices,
    owner: TransmissionOwner,
    log: PeerLog,
  ) {
    this.#stream = stream;
    this.#result = result;
    this.#services = services;
    this.#owner = owner;
    this.#log = log;
    this.#sender = new ReplySender(stream, result.agreement);
    this.#requests = new RequestStream(result.agreement.isExtended);
    this.lastProgressMs = services.clock.nowMs();
    const { backend, flush, contexts } = result.export;
    this.#target = {
      backend,
      flush,
      canFragment: result.agreement.isStructured,
      contexts: result.metaContexts.flatMap(({ id, name }) => {
        const context = contexts.find((candidate) => candidate.name === name);
        return context === undefined ? [] : [{ id, context }];
      }),
    };
    services.budget.join(this);
  }

  /** Requests accepted and not yet answered. */
  get inFlightRequests(): number {
    return this.#inFlightRequests;
  }

  /** Takes bytes from the client. */
  receive(chunk: Uint8Array): void {
    this.lastProgressMs = this.#services.clock.nowMs();
    if (this.#stage === 'over') return;
    this.#requests.push(chunk);
    this.#pump();
  }

  /** The client sends no more: what was accepted is still answered. */
  endOfInput(): void {
    if (this.#stage === 'over') return;
    const unfinished = this.#requests.isInsideRequest ? ' in the middle of a request' : '';
    this.#log.info('closed', `left without NBD_CMD_DISC${unfinished}.`);
    this.#endInput();
  }

  /** Answers what was accepted, refuses what comes with ESHUTDOWN, and finishes when idle. */
  shutDown(): void {
    this.#isShuttingDown = true;
    if (this.#stage === 'awaitsBudget' || this.#stage === 'awaitsReplies') {
      // It was read but not accepted, so it is refused like those that come later.
      this.#services.budget.forget(this);
      this.#acceptHeader();
      this.#pump();
    }
    this.#finishWhenIdle();
  }

  /** The stream is gone: nothing can be sent any more. What the backend does is not recalled. */
  streamClosed(): void {
    this.#isClosed = true;
    this.#endInput();
    this.#services.budget.leave(this);
  }

  evict(): void {
    const seconds = Math.round(this.#services.limits.stallMs / 1000);
    this.#owner.drop(`did not move for ${seconds} s while it held memory that others waited for`);
  }

  #pump(): void {
    while (this.#advance()) {
      // Each step uses up a piece of the stream.
    }
    if (this.#stage === 'awaitsBudget' || this.#stage === 'awaitsReplies') this.#stream.pause();
    else if (this.#stage !== 'over') this.#stream.resume();
  }

  /** One step; false when there is nothing to do before more bytes or replies. */
  #advance(): boolean {
    switch (this.#stage) {
      case 'header':
        return this.#readHeader();
      case 'payload': {
        const payload = this.#requests.readPayload();
        if (payload === undefined) return false;
        this.#start(payload);
        return true;
      }
      case 'drain':
        if (!this.#requests.readDrain()) return false;
        this.#sendRefusal();
        return true;
      case 'awaitsReplies':
      case 'awaitsBudget':
      case 'over':
        return false;
    }
  }

  #readHeader(): boolean {
    const outcome = this.#requests.readHeader(this.#request);
    if (outcome === 'more') return false;
    if (outcome === 'badMagic') {
      this.#owner.drop('sent a request with a wrong magic number');
      return false;
    }
    if (this.#request.command === NbdCmd.DISC) {
      this.#log.info('closed', 'disconnected.');
      this.#endInput();
      return false;
    }
    this.#acceptHeader();
    return true;
  }

  /** Decides about the request in `#request`: refuse it, serve it, or wait for room. */
  #acceptHeader(): void {
    const { limits } = this.#services;
    if (this.#inFlightRequests >= limits.requestsPerConnection) {
      this.#stage = 'awaitsReplies';
      return;
    }
    const request = this.#request;
    const { export: entry, agreement } = this.#result;
    const errno = this.#isShuttingDown
      ? NbdErrno.ESHUTDOWN
      : checkRequest(request, entry, agreement);
    if (errno === NbdErrno.OK) {
      this.#admit();
      return;
    }
    const payloadBytes = requestPayloadBytes(request, agreement.isExtended);
    if (agreement.isExtended && payloadBytes > entry.maxRequestBytes) {
      // The length may be anything up to 2^64, so reading it away could take for ever.
      this.#owner.drop(
        `sent ${nbdCmdName(request.command)} with a payload of ${payloadBytes} bytes`,
      );
      return;
    }
    this.#refusal = errno;
    this.#stage = 'drain';
    this.#requests.startDrain(payloadBytes);
  }

  #admit(): void {
    const { command, lengthBytes } = this.#request;
    const { limits, budget } = this.#services;
    const costBytes = command === NbdCmd.READ || command === NbdCmd.WRITE ? lengthBytes : 0;
    const bytes = this.#inFlightBytes + costBytes;
    if (this.#inFlightBytes > 0 && bytes > limits.bytesPerConnection) {
      this.#stage = 'awaitsReplies';
    } else if (this.#reservedBytes + costBytes <= limits.reservedBytesPerConnection) {
      this.#reservedBytes += costBytes;
      this.#accept(costBytes, 'reserve');
    } else if (budget.take(costBytes)) {
      this.#accept(costBytes, 'budget');
    } else {
      this.#stage = 'awaitsBudget';
      budget.wait(this, costBytes, () => {
        this.#accept(costBytes, 'budget');
        this.#pump();
      });
    }
  }

  #accept(costBytes: number, source: InFlight['source']): void {
    this.#inFlightRequests += 1;
    this.#inFlightBytes += costBytes;
    if (source === 'budget') this.budgetedBytes += costBytes;
    // The record is reused for the next header, which is decoded before this reply is sent.
    const request = { ...this.#request };
    this.#admitted = { request, costBytes, source, isReleased: false };
    if (request.command === NbdCmd.WRITE) {
      this.#stage = 'payload';
      this.#requests.startPayload(request.lengthBytes);
    } else {
      this.#start(NO_PAYLOAD);
    }
  }

  #start(payload: Uint8Array): void {
    const inFlight = this.#admitted;
    if (inFlight === undefined) return;
    this.#admitted = undefined;
    this.#stage = 'header';
    void executeRequest(this.#target, inFlight.request, payload).then((outcome) => {
      if (outcome.kind === 'failed') this.#logFailure(inFlight.request, outcome.cause);
      this.#reply(inFlight, outcome);
    });
  }

  #logFailure({ command, offset, lengthBytes }: Readonly<NbdRequest>, cause: unknown): void {
    const what = `${nbdCmdName(command)} of ${lengthBytes} bytes at ${offset}`;
    const why = cause instanceof Error ? cause.message : String(cause);
    this.#log.warn('backend', `${what} failed: ${why}`);
  }

  #sendRefusal(): void {
    const { export: entry, agreement } = this.#result;
    const errno = this.#refusal;
    const text =
      errno === NbdErrno.ESHUTDOWN
        ? 'The server is shutting down.'
        : explainRefusal(this.#request, entry, errno, agreement);
    if (errno !== NbdErrno.ESHUTDOWN) this.#log.warn('request', `was refused: ${text}`);
    this.#stage = 'header';
    this.#inFlightRequests += 1;
    const outcome: Outcome = { kind: 'failed', errno, text, offset: undefined, cause: undefined };
    const request = { ...this.#request };
    this.#reply({ request, costBytes: 0, source: 'reserve', isReleased: false }, outcome);
  }

  #reply(inFlight: InFlight, outcome: Outcome): void {
    if (this.#isClosed) {
      this.#release(inFlight);
      return;
    }
    this.#sender.send(inFlight.request, outcome, () => {
      this.lastProgressMs = this.#services.clock.nowMs();
      this.#release(inFlight);
    });
  }

  #release(inFlight: InFlight): void {
    // Node calls the callback of a write twice when a corked stream fails and is ended from within
    // such a callback, which is what happens when a client vanishes behind DISC.
    if (inFlight.isReleased) return;
    inFlight.isReleased = true;
    const { costBytes, source } = inFlight;
    this.#inFlightRequests -= 1;
    this.#inFlightBytes -= costBytes;
    if (source === 'reserve') {
      this.#reservedBytes -= costBytes;
    } else {
      this.budgetedBytes -= costBytes;
      this.#services.budget.give(costBytes);
    }
    if (this.#stage === 'awaitsReplies') {
      this.#acceptHeader();
      this.#pump();
    }
    this.#finishWhenIdle();
    if (this.#inFlightRequests === 0) this.onIdle?.();
  }

  /** Reads no more. A request whose payload did not arrive is given up. */
  #endInput(): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    this.#services.budget.forget(this);
    this.#requests.discard();
    const unfinished = this.#admitted;
    this.#admitted = undefined;
    if (unfinished !== undefined) this.#release(unfinished);
    this.#finishWhenIdle();
  }

  #finishWhenIdle(): void {
    if (this.#isFinished || this.#isClosed || this.#inFlightRequests > 0) return;
    const isDrained = this.#isShuttingDown && !this.#requests.isInsideRequest;
    if (this.#stage !== 'over' && !isDrained) return;
    this.#isFinished = true;
    this.#stage = 'over';
    this.#owner.finish();
  }
}
