/** Why a connection ended, for the log. */
export type CloseReason =
  | 'client disconnected'
  | 'client left without disconnecting'
  | 'client sent something that is no request'
  | 'client sent more than fits before it knew the export'
  | 'client does not read its replies'
  | 'client stopped in the middle of a write'
  | 'connection failed'
  | 'server stops';

/** Reasons that are the client's fault. */
export const FAULTS_OF_CLIENTS: ReadonlySet<CloseReason> = new Set<CloseReason>([
  'client sent something that is no request',
  'client sent more than fits before it knew the export',
  'client does not read its replies',
  'client stopped in the middle of a write',
]);
