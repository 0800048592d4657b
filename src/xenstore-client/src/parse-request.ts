/**
 * The server's half of the requests: bytes to checked, typed values. The layout of each body stands
 * in request.ts.
 */
import { decodeStrings, splitFirstString } from './body.ts';
import { nameOfXsType, XsType } from './constants.ts';
import { XenStoreError } from './errors.ts';
import { parseDecimal, parseDomid } from './number.ts';
import type { Packet } from './packet.ts';
import { checkAnyPath, checkNodePath } from './path.ts';
import { type Permission, parsePermission } from './permissions.ts';
import type {
  DomainRequest,
  GetQuotaRequest,
  IntroduceRequest,
  NodeRequest,
  SetQuotaRequest,
  WatchRequest,
  XsRequest,
} from './request.ts';

/**
 * The request in a packet, checked: paths, permissions and domain ids in the result are valid.
 * Relative paths stay relative. A value is a view of the packet, not a copy.
 * @throws XenStoreError with the code to answer: `EINVAL` for a body that is not what its type
 *   asks for, `ENOSYS` for a type that is not a request.
 */
export function parseRequest(packet: Packet): XsRequest {
  const request = parseBody(packet.type, packet.payload);
  if (request === undefined) {
    throw new XenStoreError(
      'EINVAL',
      `The body of the ${nameOfXsType(packet.type)} request is not what the protocol asks for.`,
    );
  }
  return request;
}

/** The request, or undefined if the body is malformed. */
function parseBody(type: number, body: Uint8Array): XsRequest | undefined {
  switch (type) {
    case XsType.READ:
    case XsType.DIRECTORY:
    case XsType.MKDIR:
    case XsType.RM:
      return parseNode(type, decodeStrings(body));
    case XsType.WRITE:
      return parseWrite(body);
    case XsType.GET_PERMS:
      return parseGetPerms(decodeStrings(body));
    case XsType.SET_PERMS:
      return parseSetPerms(decodeStrings(body));
    case XsType.DIRECTORY_PART:
      return parseDirectoryPart(decodeStrings(body));
    case XsType.WATCH:
      return parseWatch(decodeStrings(body));
    case XsType.UNWATCH:
      return parseUnwatch(decodeStrings(body));
    case XsType.TRANSACTION_START:
    case XsType.RESET_WATCHES:
      // Servers never looked at this body, and some clients send none.
      return { type };
    case XsType.TRANSACTION_END:
      return parseTransactionEnd(decodeStrings(body));
    default:
      return parseAdministration(type, decodeStrings(body));
  }
}

type Strings = readonly string[] | undefined;

/** The requests that only a privileged domain may send, and those about domains. */
function parseAdministration(type: number, strings: Strings): XsRequest | undefined {
  switch (type) {
    case XsType.GET_DOMAIN_PATH:
    case XsType.IS_DOMAIN_INTRODUCED:
    case XsType.RELEASE:
    case XsType.RESUME:
      return parseDomain(type, strings);
    case XsType.INTRODUCE:
      return parseIntroduce(strings);
    case XsType.SET_TARGET:
      return parseSetTarget(strings);
    case XsType.CONTROL:
      return strings === undefined || strings.length === 0 ? undefined : { type, args: strings };
    case XsType.GET_FEATURE:
      return parseGetFeature(strings);
    case XsType.SET_FEATURE:
      return parseSetFeature(strings);
    case XsType.GET_QUOTA:
      return parseGetQuota(strings);
    case XsType.SET_QUOTA:
      return parseSetQuota(strings);
    default:
      throw new XenStoreError('ENOSYS', `${nameOfXsType(type)} is not a request.`);
  }
}

function parseNode(type: NodeRequest['type'], strings: Strings): XsRequest | undefined {
  const [path] = strings ?? [];
  if (path === undefined || strings?.length !== 1) return undefined;
  checkNodePath(path);
  return { type, path };
}

function parseWrite(body: Uint8Array): XsRequest | undefined {
  const parts = splitFirstString(body);
  if (parts === undefined) return undefined;
  checkNodePath(parts.first);
  return { type: XsType.WRITE, path: parts.first, value: parts.rest };
}

function parseGetPerms(strings: Strings): XsRequest | undefined {
  const [path] = strings ?? [];
  if (path === undefined || strings?.length !== 1) return undefined;
  checkAnyPath(path);
  return { type: XsType.GET_PERMS, path };
}

function parseSetPerms(strings: Strings): XsRequest | undefined {
  const [path, ...texts] = strings ?? [];
  if (path === undefined || texts.length === 0) return undefined;
  checkAnyPath(path);
  const permissions: Permission[] = [];
  for (const text of texts) {
    const permission = parsePermission(text);
    if (permission === undefined) return undefined;
    permissions.push(permission);
  }
  return { type: XsType.SET_PERMS, path, permissions };
}

function parseDirectoryPart(strings: Strings): XsRequest | undefined {
  const [path, offset = ''] = strings ?? [];
  const offsetBytes = parseDecimal(offset);
  if (path === undefined || offsetBytes === undefined || strings?.length !== 2) return undefined;
  checkNodePath(path);
  return { type: XsType.DIRECTORY_PART, path, offsetBytes };
}

function parseWatch(strings: Strings): WatchRequest | undefined {
  const [path, token, depthText, ...rest] = strings ?? [];
  if (path === undefined || token === undefined || rest.length > 0) return undefined;
  checkAnyPath(path);
  if (depthText === undefined) return { type: XsType.WATCH, path, token };
  const depth = parseDecimal(depthText);
  return depth === undefined ? undefined : { type: XsType.WATCH, path, token, depth };
}

function parseUnwatch(strings: Strings): XsRequest | undefined {
  const [path, token, ...rest] = strings ?? [];
  if (path === undefined || token === undefined || rest.length > 0) return undefined;
  checkAnyPath(path);
  return { type: XsType.UNWATCH, path, token };
}

function parseTransactionEnd(strings: Strings): XsRequest | undefined {
  const [flag] = strings ?? [];
  if (strings?.length !== 1 || (flag !== 'T' && flag !== 'F')) return undefined;
  return { type: XsType.TRANSACTION_END, commit: flag === 'T' };
}

function parseDomain(type: DomainRequest['type'], strings: Strings): XsRequest | undefined {
  const domid = parseDomid(strings?.[0] ?? '');
  return domid === undefined || strings?.length !== 1 ? undefined : { type, domid };
}

function parseIntroduce(strings: Strings): IntroduceRequest | undefined {
  const domid = parseDomid(strings?.[0] ?? '');
  const frame = parseDecimal(strings?.[1] ?? '');
  const eventChannelPort = parseDecimal(strings?.[2] ?? '');
  if (domid === undefined || frame === undefined || eventChannelPort === undefined) {
    return undefined;
  }
  // A fourth, reserved string may follow.
  return { type: XsType.INTRODUCE, domid, frame, eventChannelPort };
}

function parseSetTarget(strings: Strings): XsRequest | undefined {
  const domid = parseDomid(strings?.[0] ?? '');
  const targetDomid = parseDomid(strings?.[1] ?? '');
  if (domid === undefined || targetDomid === undefined || strings?.length !== 2) return undefined;
  return { type: XsType.SET_TARGET, domid, targetDomid };
}

function parseGetFeature(strings: Strings): XsRequest | undefined {
  if (strings === undefined || strings.length > 1) return undefined;
  const [text] = strings;
  if (text === undefined) return { type: XsType.GET_FEATURE };
  const domid = parseDomid(text);
  return domid === undefined ? undefined : { type: XsType.GET_FEATURE, domid };
}

function parseSetFeature(strings: Strings): XsRequest | undefined {
  const domid = parseDomid(strings?.[0] ?? '');
  const features = parseDecimal(strings?.[1] ?? '');
  if (domid === undefined || features === undefined || strings?.length !== 2) return undefined;
  return { type: XsType.SET_FEATURE, domid, features };
}

function parseGetQuota(strings: Strings): GetQuotaRequest | undefined {
  if (strings === undefined || strings.length > 2) return undefined;
  const quota = strings.at(-1);
  if (quota === undefined) return { type: XsType.GET_QUOTA };
  if (strings.length === 1) return { type: XsType.GET_QUOTA, quota };
  const domid = parseDomid(strings[0] ?? '');
  return domid === undefined ? undefined : { type: XsType.GET_QUOTA, domid, quota };
}

function parseSetQuota(strings: Strings): SetQuotaRequest | undefined {
  if (strings === undefined || strings.length < 2 || strings.length > 3) return undefined;
  const quota = strings.at(-2);
  const value = parseDecimal(strings.at(-1) ?? '');
  if (quota === undefined || value === undefined) return undefined;
  if (strings.length === 2) return { type: XsType.SET_QUOTA, quota, value };
  const domid = parseDomid(strings[0] ?? '');
  return domid === undefined ? undefined : { type: XsType.SET_QUOTA, domid, quota, value };
}
