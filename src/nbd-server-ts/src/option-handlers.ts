// What each option of the handshake does: one function per option. Section "Option types". The
// data is complete and within the limits when a handler is called; TLS policy and shutdown were
// looked at before (see negotiation.ts). Handlers reply through the state and return what is next.

import { NbdInfo, NbdOpt, NbdRep } from './constants.ts';
import type { ExportEntry } from './export-catalog.ts';
import { transmissionFlags } from './export-info.ts';
import { type HandshakeState, type NegotiationNext, quoteForLog } from './handshake-state.ts';
import { decodeString, parseInfoQuery, parseMetaContextQuery } from './option-payload.ts';
import {
  encodeExportNameAnswer,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContextReply,
  encodeServerReply,
} from './option-reply.ts';

type State = HandshakeState<ExportEntry>;
type OptionHandler = (state: State, data: Uint8Array) => NegotiationNext;

function enterTransmission(state: State, entry: ExportEntry): NegotiationNext {
  const agreement = state.agreementFor(entry);
  state.result = {
    export: entry,
    transmissionFlags: transmissionFlags(entry, agreement),
    agreement,
    metaContexts: state.metaContextsOf(entry),
    isTls: state.isTls,
  };
  return 'transmission';
}

/** The old way in. It has no error reply, so whatever is wrong drops the connection. */
function handleExportName(state: State, data: Uint8Array): NegotiationNext {
  if (state.isExtended) {
    return state.drop('NBD_OPT_EXPORT_NAME after extended headers were agreed');
  }
  const name = decodeString(data);
  if (name === undefined) {
    return state.drop('NBD_OPT_EXPORT_NAME with a name that is not a string of the protocol');
  }
  const entry = state.findExport(name);
  if (entry === 'unknown') {
    return state.drop(`NBD_OPT_EXPORT_NAME for ${quoteForLog(name)}, which does not exist`);
  }
  if (entry === 'needsTls') {
    return state.drop(`NBD_OPT_EXPORT_NAME for ${quoteForLog(name)}, which needs TLS`);
  }
  const flags = transmissionFlags(entry, state.agreementFor(entry));
  state.outgoing.push(encodeExportNameAnswer(entry.sizeBytes, flags, state.hasNoZeroes));
  return enterTransmission(state, entry);
}

/** The client gives up; its data is ignored. */
function handleAbort(state: State): NegotiationNext {
  state.reply(NbdOpt.ABORT, NbdRep.ACK);
  return 'close';
}

function handleList(state: State, data: Uint8Array): NegotiationNext {
  if (data.length !== 0) {
    return state.refuse(NbdOpt.LIST, NbdRep.ERR_INVALID, 'This option takes no data.');
  }
  const entries = state.catalog.list();
  if (entries === undefined) {
    return state.refuse(NbdOpt.LIST, NbdRep.ERR_POLICY, 'Listing exports is switched off.');
  }
  for (const entry of entries) {
    if (entry.isTlsRequired === true && !state.isTls) continue;
    state.outgoing.push(encodeServerReply(NbdOpt.LIST, entry.name, entry.description));
  }
  return state.reply(NbdOpt.LIST, NbdRep.ACK);
}

function handleStartTls(state: State, data: Uint8Array): NegotiationNext {
  if (data.length !== 0) {
    return state.refuse(NbdOpt.STARTTLS, NbdRep.ERR_INVALID, 'This option takes no data.');
  }
  if (state.isTls) {
    return state.refuse(NbdOpt.STARTTLS, NbdRep.ERR_INVALID, 'TLS is already in use.');
  }
  if (state.tls === 'off') {
    return state.refuse(NbdOpt.STARTTLS, NbdRep.ERR_POLICY, 'TLS is switched off.');
  }
  state.reply(NbdOpt.STARTTLS, NbdRep.ACK);
  return 'startTls';
}

/** INFO and GO share everything but the last step, so equal questions get equal answers. */
function answerInfo(state: State, option: NbdOpt, data: Uint8Array): NegotiationNext | ExportEntry {
  const query = parseInfoQuery(data);
  if (query === undefined) {
    return state.refuse(option, NbdRep.ERR_INVALID, 'The lengths or the name are malformed.');
  }
  const entry = state.findExport(query.exportName);
  if (entry === 'unknown') {
    const text = `There is no export ${quoteForLog(query.exportName)}.`;
    return state.refuse(option, NbdRep.ERR_UNKNOWN, text);
  }
  if (entry === 'needsTls') {
    return state.refuse(option, NbdRep.ERR_TLS_REQD, 'This export needs TLS.');
  }
  const flags = transmissionFlags(entry, state.agreementFor(entry));
  if (query.kinds.has(NbdInfo.NAME)) {
    state.outgoing.push(encodeInfoText(option, NbdInfo.NAME, entry.name));
  }
  if (query.kinds.has(NbdInfo.DESCRIPTION) && entry.description !== '') {
    state.outgoing.push(encodeInfoText(option, NbdInfo.DESCRIPTION, entry.description));
  }
  if (query.kinds.has(NbdInfo.BLOCK_SIZE)) {
    state.outgoing.push(encodeInfoBlockSize(option, entry));
  }
  state.outgoing.push(encodeInfoExport(option, entry.sizeBytes, flags));
  state.reply(option, NbdRep.ACK);
  return entry;
}

function handleInfo(state: State, data: Uint8Array): NegotiationNext {
  answerInfo(state, NbdOpt.INFO, data);
  return 'more';
}

function handleGo(state: State, data: Uint8Array): NegotiationNext {
  const answer = answerInfo(state, NbdOpt.GO, data);
  return typeof answer === 'string' ? answer : enterTransmission(state, answer);
}

function handleStructuredReply(state: State, data: Uint8Array): NegotiationNext {
  const option = NbdOpt.STRUCTURED_REPLY;
  if (!state.offers.structuredReplies) return refuseUnsupported(state, option);
  if (data.length !== 0) {
    return state.refuse(option, NbdRep.ERR_INVALID, 'This option takes no data.');
  }
  if (state.isExtended) {
    const text = 'Extended headers are in use and replace structured replies.';
    return state.refuse(option, NbdRep.ERR_EXT_HEADER_REQD, text);
  }
  state.isStructured = true;
  return state.reply(option, NbdRep.ACK);
}

function handleExtendedHeaders(state: State, data: Uint8Array): NegotiationNext {
  const option = NbdOpt.EXTENDED_HEADERS;
  if (!state.offers.extendedHeaders) return refuseUnsupported(state, option);
  if (data.length !== 0) {
    return state.refuse(option, NbdRep.ERR_INVALID, 'This option takes no data.');
  }
  if (state.isExtended) {
    return state.refuse(option, NbdRep.ERR_INVALID, 'Extended headers are already in use.');
  }
  state.isExtended = true;
  state.isStructured = true;
  return state.reply(option, NbdRep.ACK);
}

/** The part that LIST and SET share: the query and the export, or the refusal that was sent. */
function readMetaContextQuery(
  state: State,
  option: NbdOpt,
  data: Uint8Array,
): { entry: ExportEntry; queries: readonly string[] } | undefined {
  if (!state.isStructured) {
    state.refuse(option, NbdRep.ERR_INVALID, 'Structured replies have to be agreed on first.');
    return undefined;
  }
  const query = parseMetaContextQuery(data);
  if (query === undefined) {
    state.refuse(option, NbdRep.ERR_INVALID, 'The lengths or the strings are malformed.');
    return undefined;
  }
  const entry = state.findExport(query.exportName);
  if (entry === 'unknown') {
    const text = `There is no export ${quoteForLog(query.exportName)}.`;
    state.refuse(option, NbdRep.ERR_UNKNOWN, text);
    return undefined;
  }
  if (entry === 'needsTls') {
    state.refuse(option, NbdRep.ERR_TLS_REQD, 'This export needs TLS.');
    return undefined;
  }
  return { entry, queries: query.queries };
}

/** Without a query all contexts are listed; "base:" lists all of that namespace. */
function handleListMetaContext(state: State, data: Uint8Array): NegotiationNext {
  const option = NbdOpt.LIST_META_CONTEXT;
  if (!state.offers.structuredReplies) return refuseUnsupported(state, option);
  const query = readMetaContextQuery(state, option, data);
  if (query === undefined) return 'more';
  const wanted = new Set(query.queries);
  for (const name of query.entry.metaContextNames ?? []) {
    const namespace = name.slice(0, name.indexOf(':') + 1);
    if (wanted.size > 0 && !wanted.has(name) && !wanted.has(namespace)) continue;
    state.outgoing.push(encodeMetaContextReply(option, 0, name));
  }
  return state.reply(option, NbdRep.ACK);
}

/** Replaces the earlier choice. Wildcards choose nothing here, and the unknown is passed over. */
function handleSetMetaContext(state: State, data: Uint8Array): NegotiationNext {
  const option = NbdOpt.SET_META_CONTEXT;
  if (!state.offers.structuredReplies) return refuseUnsupported(state, option);
  // A refused SET must not leave the earlier choice standing: the client did not ask for that.
  state.metaContexts = undefined;
  const query = readMetaContextQuery(state, option, data);
  if (query === undefined) return 'more';
  const wanted = new Set(query.queries);
  const choices = (query.entry.metaContextNames ?? [])
    .filter((name) => wanted.has(name))
    .map((name, index) => ({ id: index + 1, name }));
  state.metaContexts = { exportName: query.entry.name, choices };
  for (const { id, name } of choices) {
    state.outgoing.push(encodeMetaContextReply(option, id, name));
  }
  return state.reply(option, NbdRep.ACK);
}

/** Unknown options are normal: a newer client asks and takes no for an answer. */
export function refuseUnsupported(state: State, option: number): NegotiationNext {
  // Not a fault of the client, so no reason is noted: every modern client would fill the log.
  state.refuse(option, NbdRep.ERR_UNSUP, 'This option is not supported.');
  state.reasons.pop();
  return 'more';
}

/** The handler of each option that is known. */
export const optionHandlers: ReadonlyMap<number, OptionHandler> = new Map<number, OptionHandler>([
  [NbdOpt.EXPORT_NAME, handleExportName],
  [NbdOpt.ABORT, handleAbort],
  [NbdOpt.LIST, handleList],
  [NbdOpt.STARTTLS, handleStartTls],
  [NbdOpt.INFO, handleInfo],
  [NbdOpt.GO, handleGo],
  [NbdOpt.STRUCTURED_REPLY, handleStructuredReply],
  [NbdOpt.LIST_META_CONTEXT, handleListMetaContext],
  [NbdOpt.SET_META_CONTEXT, handleSetMetaContext],
  [NbdOpt.EXTENDED_HEADERS, handleExtendedHeaders],
]);
