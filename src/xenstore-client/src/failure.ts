/** Sentences for people about what XenStore refused. */
import { isXsErrorName, nameOfXsType, type XsErrorName } from './constants.ts';
import { XenStoreError } from './errors.ts';
import { quotePath } from './path.ts';
import type { XsRequest } from './request.ts';

const meanings: Readonly<Record<XsErrorName, string>> = {
  EINVAL: 'the request is not valid',
  EACCES: 'this domain may not do that there; look at the permissions of the node',
  EEXIST: 'it exists already',
  EISDIR: 'it has children',
  ENOENT: 'there is no such node, transaction or watch',
  ENOMEM: 'the server is out of memory',
  ENOSPC: "this domain's quota of nodes, watches, transactions or bytes is used up",
  EIO: 'the server could not read or write its database',
  ENOTEMPTY: 'it has children',
  ENOSYS: 'this server does not know the request',
  EROFS: 'the server is read-only',
  EBUSY: 'the server is busy with it, or a transaction is already open',
  EAGAIN: 'another client changed the same nodes meanwhile; try again',
  EISCONN: 'the domain is connected already',
  E2BIG: 'it does not fit into one message',
  EPERM: 'only a privileged domain may do that',
};

/**
 * The error for a request that the server answered with an error name. A name that xs_wire.h does
 * not have becomes `EINVAL`, as in libxenstore, and stands in the message.
 */
export function errorForAnswer(request: XsRequest, answer: string): XenStoreError {
  const isKnown = isXsErrorName(answer);
  const meaning = isKnown ? meanings[answer] : 'an error this client does not know';
  return new XenStoreError(
    isKnown ? answer : 'EINVAL',
    `XenStore refused ${describeRequest(request)} with ${answer}: ${meaning}.`,
    { path: pathOf(request) },
  );
}

/** The error for a request that the transport refused to send. */
export function errorForUnsent(request: XsRequest, refusal: XenStoreError): XenStoreError {
  return new XenStoreError(
    refusal.code,
    `The request ${describeRequest(request)} was not sent: ${refusal.message}`,
    { path: pathOf(request), cause: refusal },
  );
}

/** What an error name of XenStore means, as a clause. */
export function meaningOf(name: XsErrorName): string {
  return meanings[name];
}

function describeRequest(request: XsRequest): string {
  const path = pathOf(request);
  const name = nameOfXsType(request.type);
  return path === undefined ? name : `${name} of ${quotePath(path)}`;
}

function pathOf(request: XsRequest): string | undefined {
  return 'path' in request ? request.path : undefined;
}
