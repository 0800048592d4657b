/** The events that a daemon tells on /events of its metrics address. */

import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { DaemonError, formatAddress, type ListenAddress } from '../daemon/index.ts';
import type { Report, Sample } from '../monitor/index.ts';

/** What the daemon tells: all at first, then what is new, once a second. */
export type DaemonEvent =
  | { readonly name: 'status'; readonly report: Report; readonly history: readonly Sample[] }
  | { readonly name: 'sample'; readonly report: Report; readonly sample: Sample };

const CONNECT_MS = 5_000;
/** Twice the pause between two events, and some. */
const SILENCE_MS = 5_000;
/** Longer than any event: five minutes of samples of many vbds. */
const EVENT_CHARACTERS_MAX = 64 * 1024 * 1024;

/**
 * The events, until the daemon ends or `signal` aborts.
 *
 * @throws DaemonError when there is no daemon at `address`, or it is silent.
 */
export async function* daemonEvents(
  address: ListenAddress,
  signal: AbortSignal,
): AsyncGenerator<DaemonEvent> {
  const where = formatAddress(address);
  try {
    const response = await connect(address, signal);
    if (response.statusCode !== 200) {
      throw new DaemonError(
        `${where} answers ${response.statusCode}: is it xenblk-nbd's --metrics?`,
      );
    }
    yield* parse(response.setEncoding('utf8'));
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof DaemonError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const advice =
      code === 'EACCES'
        ? 'only root and the user that it runs as may look'
        : 'start `serve` with --metrics, or give its address';
    throw new DaemonError(`no daemon answers at ${where} (${code ?? message}): ${advice}`, {
      cause: error,
    });
  }
}

function connect(address: ListenAddress, signal: AbortSignal): Promise<IncomingMessage> {
  const place =
    address.kind === 'unix'
      ? { socketPath: address.path }
      : { host: address.host === '::' ? '::1' : address.host, port: address.port };
  return new Promise((resolve, reject) => {
    const asked: ClientRequest = request({ ...place, path: '/events', agent: false, signal });
    asked.setTimeout(CONNECT_MS, () => asked.destroy(new DaemonError('the daemon is silent')));
    asked.once('error', reject);
    asked.once('response', (response) => {
      asked.setTimeout(SILENCE_MS);
      resolve(response);
    });
    asked.end();
  });
}

async function* parse(chunks: AsyncIterable<unknown>): AsyncGenerator<DaemonEvent> {
  let unparsed = '';
  for await (const chunk of chunks) {
    const events = (unparsed + String(chunk)).split('\n\n');
    unparsed = events.pop() ?? '';
    if (unparsed.length > EVENT_CHARACTERS_MAX) throw new DaemonError('an event without end');
    for (const event of events) {
      const [, name, data = ''] = /^event: (status|sample)\ndata: (.*)$/.exec(event) ?? [];
      if (name !== undefined) yield { name, ...JSON.parse(data) } as DaemonEvent;
    }
  }
}
