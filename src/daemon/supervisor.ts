/**
 * What we tell the service manager that started us (sd_notify(3)), if one did: datagrams of
 * `NAME=value` lines to the socket that NOTIFY_SOCKET names. Its variables are taken out of the
 * environment, so that no program that we start speaks for us.
 */

import { SysError, sendUnixDatagram } from '../sys/index.ts';

const OUR_VARIABLES = [
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'FDSTORE',
  'XENBLK_NBD_KILL_MODE',
];

/** The service manager, if one has started us. */
export class Supervisor {
  readonly #socket: string | undefined;
  /** How often it wants a sign of life, in ms; undefined for never. */
  readonly watchdogMs: number | undefined;
  /** Whether it keeps descriptors for us, also when this process ends. */
  readonly canStoreDescriptors: boolean;
  /** Whether a stop spares other processes of the service, as our unit has it. */
  readonly isSparing: boolean;
  /** Why it could not be told, for the log; the first reason alone. */
  readonly #onTrouble: (reason: string) => void;
  #isTroubled = false;

  constructor(env: NodeJS.ProcessEnv, onTrouble: (reason: string) => void) {
    const socket = env['NOTIFY_SOCKET'];
    this.#socket = socket === '' ? undefined : socket;
    this.watchdogMs = this.#socket === undefined ? undefined : parseWatchdog(env);
    // Older managers do not say how many they keep, and close them when the unit is stopped.
    this.canStoreDescriptors = this.#socket !== undefined && Number(env['FDSTORE'] ?? 0) > 0;
    this.isSparing = env['XENBLK_NBD_KILL_MODE'] === 'process';
    this.#onTrouble = onTrouble;
    for (const name of OUR_VARIABLES) delete env[name];
  }

  get isPresent(): boolean {
    return this.#socket !== undefined;
  }

  /** Clients are served from now on. */
  ready(status: string): void {
    this.#send(`READY=1\nSTATUS=${oneLine(status)}`);
  }

  stopping(): void {
    this.#send('STOPPING=1');
  }

  /** One line for people, as `systemctl status` shows it. */
  status(text: string): void {
    this.#send(`STATUS=${oneLine(text)}`);
  }

  /** The sign of life that {@link watchdogMs} asks for. */
  alive(): void {
    this.#send('WATCHDOG=1');
  }

  /** Gives it duplicates of descriptors to keep. Returns whether it was told. */
  storeDescriptors(name: string, fds: readonly number[]): boolean {
    return this.#send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, fds);
  }

  #send(message: string, fds: readonly number[] = []): boolean {
    if (this.#socket === undefined) return false;
    try {
      sendUnixDatagram(this.#socket, Buffer.from(message), fds);
      return true;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      if (!this.#isTroubled) this.#onTrouble(error.message);
      this.#isTroubled = true;
      return false;
    }
  }
}

function parseWatchdog(env: NodeJS.ProcessEnv): number | undefined {
  const pid = env['WATCHDOG_PID'];
  if (pid !== undefined && pid !== String(process.pid)) return undefined;
  const text = env['WATCHDOG_USEC'] ?? '';
  const ms = /^[0-9]{1,15}$/.test(text) ? Math.floor(Number(text) / 1000) : 0;
  return ms > 0 ? ms : undefined;
}

function oneLine(text: string): string {
  return text.replaceAll(/[\n\r]+/g, ' ');
}
