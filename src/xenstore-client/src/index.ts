export type { Transport, TransportHandlers } from './transport.ts';
