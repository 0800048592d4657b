/** The connections of a simulated lane, and which of them an epoll set would call ready. */

import type { NbdConnection } from '../../src/dataplane/nbd-connection.ts';
import { EPOLLIN, EPOLLOUT } from '../../src/sys/index.ts';
import type { NbdRequester } from './nbd-requester.ts';

interface Place {
  readonly client: NbdRequester;
  readonly connection: NbdConnection;
  /** What is watched for. */
  events: number;
}

export interface ReadyConnection {
  readonly connection: NbdConnection;
  /** Which of the events that are watched for have come. */
  readonly events: number;
  readonly isHungUp: boolean;
}

export class LanePlaces {
  readonly #places = new Map<NbdConnection, Place>();

  get size(): number {
    return this.#places.size;
  }

  connections(): NbdConnection[] {
    return [...this.#places.keys()];
  }

  add(connection: NbdConnection, client: NbdRequester): void {
    this.#places.set(connection, { client, connection, events: connection.events });
  }

  /** Forgets a connection; returns who was at the other end. */
  remove(connection: NbdConnection): NbdRequester | undefined {
    const client = this.clientOf(connection);
    this.#places.delete(connection);
    return client;
  }

  clientOf(connection: NbdConnection): NbdRequester | undefined {
    return this.#places.get(connection)?.client;
  }

  watch(connection: NbdConnection, events: number): void {
    const place = this.#places.get(connection);
    if (place !== undefined) place.events = events;
  }

  ready(): ReadyConnection[] {
    const ready: ReadyConnection[] = [];
    for (const { client, connection, events } of this.#places.values()) {
      const { isReadable, isWritable, isHungUp } = client.socket;
      const come =
        ((events & EPOLLIN) !== 0 && isReadable ? EPOLLIN : 0) |
        ((events & EPOLLOUT) !== 0 && isWritable ? EPOLLOUT : 0);
      if (come !== 0 || isHungUp) ready.push({ connection, events: come, isHungUp });
    }
    return ready;
  }
}
