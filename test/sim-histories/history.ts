/**
 * One history: a world from a seed, run to its end and judged. What its clients and troubles see of
 * it; play-history.ts is for those who only want to know how it ends.
 */

import type { Attachment, Clock } from '../../src/frontend/index.ts';
import { SeededRandom } from '../support/random.ts';
import type { ClientPlan, ClientWorld } from './client-world.ts';
import { DiskModel } from './disk-model.ts';
import { Environment } from './environment.ts';
import { checkAtRest, checkClosed, checkDisk } from './final-checks.ts';
import type { Liar } from './liar.ts';
import type { Mutant } from './mutant.ts';
import { NbdRequester } from './nbd-requester.ts';
import { constantBytes } from './payloads.ts';
import { drawPlan, type HistoryPlan, type PlanWish } from './plan.ts';
import { Scheduler } from './scheduler.ts';
import { ServedProcess } from './served-process.ts';
import { TROUBLES } from './troubles.ts';

/** What may take this long at the most, in the time of the history: longer than any timeout. */
const PATIENCE_MS = 300_000;

export interface HistoryOptions {
  readonly seed: number;
  readonly wish?: PlanWish | undefined;
  readonly mutant?: Mutant | undefined;
  /** Told each line of what happens. */
  readonly trace?: ((line: string) => void) | undefined;
}

export interface HistoryResult {
  readonly seed: number;
  /** What was wrong; undefined for a history that went well. */
  readonly violation: string | undefined;
  readonly answers: number;
  readonly errors: number;
  readonly recoveries: number;
  readonly events: number;
  /** The same for two runs of one seed, and hardly ever for two seeds. */
  readonly fingerprint: string;
}

/** Raised in the midst of a history that turned out to be wrong. */
export class HistoryOver extends Error {}

export class History implements ClientWorld {
  readonly seed: number;
  readonly plan: HistoryPlan;
  readonly scheduler: Scheduler;
  readonly environment: Environment;
  readonly model: DiskModel;
  process: ServedProcess | undefined;
  /** Requests may fail: errors were made on purpose, or the disk has shrunk. */
  mayFail: boolean;
  /** The vbd was taken away for good. */
  isUnplugged = false;
  /** The back end has lied: its data cannot be believed any more. */
  hasLied = false;
  readonly #mutant: Mutant | undefined;
  readonly #clients = new Set<NbdRequester>();
  /** Every client of the present process, also those that have left. */
  readonly #former: NbdRequester[] = [];
  /** Those of processes that died: their writes may be executed until the next has connected. */
  readonly #orphans: NbdRequester[] = [];
  #orphanedBy: ServedProcess | undefined;
  #violation: string | undefined;
  #clientId = 0;
  #isFinishing = false;
  #areTroublesOver = false;
  #isPaused = false;
  readonly #pausedTimers: (() => void)[] = [];
  #answers = 0;
  #errors = 0;
  #recoveries = 0;

  constructor({ seed, wish, mutant, trace }: HistoryOptions) {
    this.seed = seed;
    this.plan = drawPlan(new SeededRandom(seed), wish);
    this.scheduler = new Scheduler(seed, trace);
    this.scheduler.tempoMs = this.plan.tempoMs;
    this.scheduler.trace('plan', JSON.stringify(this.plan));
    this.mayFail = this.plan.errorRate > 0;
    this.#mutant = mutant;
    this.environment = new Environment({
      scheduler: this.scheduler,
      plan: this.plan,
      report: (what) => this.report(what),
      poke: () => this.pokeLanes(),
      ringBroken: (queueId) => {
        // One that a liar has left behind may be taken up again by an honest back end.
        if (!this.hasLied) this.report(`the back end found ring ${queueId} broken`);
      },
    });
    mutant?.changeEnvironment?.(this.environment);
    this.model = new DiskModel(constantBytes(0, this.plan.maxBytes));
  }

  // --- the course of it

  async play(): Promise<void> {
    await this.#until(this.environment.start(), 'the host to start');
    await this.#until(this.startProcess(), 'the first connection');
    const troubles = this.#makeTroubles();
    await this.#until(troubles, 'the troubles to pass');
    this.#areTroublesOver = true;
    await this.#untilTrue(
      () => [...this.#clients].every((client) => client.isContent),
      () => `the answers to: ${this.#describePending()}`,
    );
    await this.#finish();
  }

  async #finish(): Promise<void> {
    this.#isFinishing = true;
    const { process, model, environment } = this;
    if (process === undefined) throw new Error('there is no process');
    const beganAt = model.beginFlush();
    for (const client of this.#clients) if (!client.isOver) client.sayGoodbye();
    const errnos = await this.#until(process.drain(), 'the drain');
    const isFlushed = errnos.every((errno) => errno === 0);
    if (!isFlushed && !this.#mayFlushFail()) {
      this.report(`the last flushes ended with ${errnos.join(' and ')}`);
    }
    if (isFlushed) model.endFlush(beganAt);
    this.#check(checkAtRest(process));
    const end = await this.#until(process.close(), 'the vbd to close');
    this.#recoveries += process.recoveries;
    await this.#until(this.scheduler.sleep(1_000), 'a second');
    const isUnplugged = end?.reason === 'unplugged' && !this.plan.isReturnAwaited;
    this.#check(
      await this.#until(checkClosed(environment, end, isUnplugged), 'a look at XenStore'),
    );
    if (!this.hasLied) this.#check(checkDisk(environment, model, this.scheduler.random));
    await this.#until(environment.close(), 'the back ends to end');
  }

  #mayFlushFail(): boolean {
    return this.isEnded || this.mayFail || this.hasLied;
  }

  async #makeTroubles(): Promise<void> {
    for (const { name, pauseMs } of this.plan.troubles) {
      await this.scheduler.sleep(pauseMs);
      if (this.isEnded || this.isUnplugged) return;
      this.scheduler.trace('trouble', name);
      await TROUBLES[name](this);
    }
  }

  /** Starts the program, and clients for it. */
  async startProcess(): Promise<void> {
    const process = new ServedProcess({
      environment: this.environment,
      clock: this.#guestClock(),
      poke: () => {
        this.environment.rings.poke();
        this.pokeLanes();
      },
      prepare: (lane) => this.#mutant?.changeLane?.(lane, this.scheduler.random),
      prepareStore: (store) => this.#mutant?.changeStore?.(store, this.environment),
      events: {
        broken: (fault) => {
          this.scheduler.trace('process', `broken: ${fault}`);
          if (!this.hasLied && !this.isEnded) {
            this.report(`the back end was called broken without a lie: ${fault}`);
          }
        },
        attached: (process, attachment) => this.#attached(process, attachment),
        ended: (end) => {
          this.scheduler.trace('process', `ended: ${end.reason}`);
          const isExpected =
            end.reason === 'closed' || (end.reason === 'unplugged' && !this.plan.isReturnAwaited);
          if (!isExpected) this.report(`it ended as ${end.reason}: ${end.error?.message}`);
        },
        failed: (error) => this.report(`it failed: ${error.message}`),
      },
    });
    this.process = process;
    await process.start();
    for (const plan of this.plan.clients) this.#connect(plan);
  }

  /** Nothing of an old connection may be executed once a new one is used. */
  #attached(process: ServedProcess, { queues }: Attachment): void {
    const { rings, guest } = this.environment;
    const channels = queues.map((queue) => queue.eventChannel);
    const others = rings.othersThan(channels, guest.boundAtMs(channels));
    if (others.length > 0) {
      this.report(`a new connection is used while ring ${others.join(' and ')} is not finished`);
    }
    if (process === this.#orphanedBy) return;
    // What an earlier process had on the ring is over as well.
    this.#orphanedBy = process;
    for (const client of this.#orphans.splice(0)) client.abandonedAreOver();
  }

  #connect(plan: ClientPlan): void {
    const info = this.process?.info;
    if (info === undefined || this.#isFinishing) return;
    this.#clientId += 1;
    const client = new NbdRequester(this, plan, this.#clientId, info);
    this.#clients.add(client);
    this.#former.push(client);
    this.process?.adopt(client);
  }

  /** Ends the program as by kill -9: its clients lose their connections. */
  killProcess(): void {
    const { process } = this;
    if (process === undefined) return;
    this.#recoveries += process.recoveries;
    process.die();
    for (const client of this.#clients) {
      client.lose();
      this.#count(client);
    }
    this.#clients.clear();
    this.#orphans.push(...this.#former.splice(0));
  }

  // --- waiting

  /** Runs the history until a promise is settled. */
  async #until<T>(promise: Promise<T>, what: string): Promise<T> {
    let isSettled = false;
    const settle = (): void => {
      isSettled = true;
    };
    promise.then(settle, settle);
    await this.#untilTrue(
      () => isSettled,
      () => what,
    );
    return await promise;
  }

  async #untilTrue(isDone: () => boolean, what: () => string): Promise<void> {
    const limitMs = this.scheduler.nowMs() + PATIENCE_MS;
    const isOver = (): boolean => this.#violation !== undefined || isDone();
    if (!(await this.scheduler.run(isOver, limitMs))) {
      const { state } = this.process?.frontend ?? {};
      this.report(`waited in vain for ${what()} (the front end is ${state})`);
    }
    if (this.#violation !== undefined) throw new HistoryOver();
  }

  #check(wrong: string | undefined): void {
    if (wrong === undefined) return;
    this.report(wrong);
    throw new HistoryOver();
  }

  #describePending(): string {
    return [...this.#clients]
      .filter((client) => !client.isContent)
      .map((client) => `client ${client.id}: ${client.describePending()}`)
      .join('; ');
  }

  // --- the guest

  #guestClock(): Clock {
    const { scheduler } = this;
    return {
      nowMs: () => scheduler.nowMs(),
      startTimer: (delayMs, callback) => {
        let isCancelled = false;
        scheduler.after(Math.max(0, delayMs), () => {
          const fire = (): void => {
            if (!isCancelled) callback();
          };
          if (this.#isPaused) this.#pausedTimers.push(fire);
          else fire();
        });
        return () => {
          isCancelled = true;
        };
      },
    };
  }

  /** Stops the guest, with nothing under way to XenStore. False when there is none to stop. */
  async pauseGuest(): Promise<boolean> {
    const { xenbus } = this.environment.guest;
    if (xenbus === undefined || xenbus.isClosed || this.process === undefined) return false;
    xenbus.prepareToSave();
    while (!xenbus.isQuiet) await this.scheduler.sleep(0.05);
    this.#isPaused = true;
    xenbus.pause();
    for (const lane of this.process.lanes) lane.isPaused = true;
    return true;
  }

  /** Lets it go on, as domain `domid` if that is given. */
  resumeGuest(domid: number | undefined): void {
    const { xenbus } = this.environment.guest;
    this.#isPaused = false;
    for (const lane of this.process?.lanes ?? []) lane.isPaused = false;
    if (domid === undefined) xenbus?.resume();
    else xenbus?.restore(domid);
    for (const fire of this.#pausedTimers.splice(0)) fire();
    this.pokeLanes();
  }

  /** A lie that was told must have been noticed by now, if it ever reached the lane. */
  expectNoticed(liar: Liar): void {
    const isServed = this.environment.rings.liars().includes(liar);
    const isNoticed = this.process?.lanes.some((lane) => lane.isBroken) === true;
    if (liar.hasLied && isServed && !isNoticed) {
      this.report(`nobody noticed that the back end said ${liar.told}`);
    }
  }

  // --- ClientWorld

  get hotSpots(): readonly number[] {
    return this.plan.hotSpots;
  }

  get trimGranularityBytes(): number | undefined {
    const { discard, sectorSize } = this.plan.features;
    return discard ? Math.max(4096, sectorSize) : undefined;
  }

  get isDataTrusted(): boolean {
    return !this.hasLied;
  }

  /** Whether the vbd is gone for good. */
  get isEnded(): boolean {
    return this.process?.end !== undefined;
  }

  report(what: string): void {
    if (this.#violation !== undefined) return;
    this.#violation = what;
    this.scheduler.trace('WRONG', what);
  }

  mayAnswer(_client: NbdRequester, errno: number): boolean {
    const EIO = 5;
    const ESHUTDOWN = 108;
    if (errno === ESHUTDOWN) return this.#isFinishing;
    return errno === EIO && (this.mayFail || this.hasLied || this.isEnded);
  }

  pokeLanes(): void {
    for (const lane of this.process?.lanes ?? []) lane.poke();
  }

  left(client: NbdRequester): void {
    this.#clients.delete(client);
    this.#count(client);
    if (this.#isFinishing || this.#areTroublesOver) return;
    const { random } = this.scheduler;
    if (random.chance(0.7)) {
      const plan = random.pick(this.plan.clients);
      this.#connect({ ...plan, requests: 1 + random.below(20) });
    }
  }

  #count(client: NbdRequester): void {
    this.#answers += client.answers;
    this.#errors += client.errors;
  }

  // --- the end

  free(): void {
    for (const lane of this.process?.lanes ?? []) lane.isStopped = true;
    for (const client of this.#clients) client.socket.close();
    const isTouched = this.environment.free();
    if (isTouched) this.report('memory was written to after it had been given back');
  }

  result(): HistoryResult {
    const { seed, scheduler } = this;
    return {
      seed,
      violation: this.#violation,
      answers: this.#answers,
      errors: this.#errors,
      recoveries: this.#recoveries,
      events: scheduler.eventCount,
      fingerprint: `${scheduler.eventCount} events, ${scheduler.nowMs()} ms, ${scheduler.random.u32()}`,
    };
  }
}
