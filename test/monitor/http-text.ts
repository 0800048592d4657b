// One request over HTTP, to a TCP port or a Unix socket.
import { type IncomingMessage, request } from 'node:http';

/** Where a server is. */
export type HttpPlace = { readonly port: number } | { readonly socketPath: string };

/** What it answered. */
export interface HttpAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/** Asks once. */
export async function fetchText(
  place: HttpPlace,
  path: string,
  method = 'GET',
): Promise<HttpAnswer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ ...place, host: '127.0.0.1', path, method, agent: false }, resolve)
      .once('error', reject)
      .end();
  });
  let body = '';
  for await (const chunk of response.setEncoding('utf8')) body += chunk as string;
  return { status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', body };
}

/** Server-sent events of a place, until `isEnough` has seen what it wants. */
export async function watchEvents(
  place: HttpPlace,
  isEnough: (name: string, data: string) => boolean,
): Promise<void> {
  const asked = request({ ...place, host: '127.0.0.1', path: '/events', agent: false }).end();
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    asked.once('response', resolve).once('error', reject);
  });
  let unparsed = '';
  for await (const chunk of response.setEncoding('utf8')) {
    const events = (unparsed + (chunk as string)).split('\n\n');
    unparsed = events.pop() ?? '';
    const isDone = events.some((event) => {
      const [, name = '', data = ''] = /^event: (.*)\ndata: (.*)$/.exec(event) ?? [];
      return isEnough(name, data);
    });
    if (isDone) break;
  }
  asked.destroy();
}
