/** A XenStore client for Node. The wire protocol alone is exported as `xenstore-client/wire`. */
export {
  type Timers,
  type TransactionOptions,
  type WaitOptions,
  XenStoreClient,
  type XenStoreClientOptions,
} from './client.ts';
export { type ConnectOptions, connectXenStore } from './connect.ts';
export type { XsAnswer } from './connection.ts';
export { type XsErrorName, XsType } from './constants.ts';
export {
  DeviceTransport,
  type DeviceTransportOptions,
  type OpenDeviceOptions,
  openDevice,
  XENBUS_DEVICE_PATHS,
  XENBUS_PAYLOAD_MAX,
} from './device-transport.ts';
export {
  XenStoreClosedError,
  XenStoreConnectError,
  XenStoreError,
  type XenStoreErrorCode,
  type XenStoreErrorOptions,
  XenStoreProtocolError,
} from './errors.ts';
export type { StoreOperations } from './operations.ts';
export { INTRODUCE_DOMAIN_PATH, RELEASE_DOMAIN_PATH } from './path.ts';
export type { Permission, PermissionAccess } from './permissions.ts';
export {
  PollingWaiter,
  type PollingWaiterOptions,
  type ReadableWaiter,
} from './readable-waiter.ts';
export type { XsRequest } from './request.ts';
export { openUnixSocket, SocketTransport, XENSTORED_SOCKET_PATHS } from './socket-transport.ts';
export type { XenStoreTransaction } from './transaction.ts';
export type { Transport, TransportHandlers } from './transport.ts';
export type { Watch, WatchEvents, WatchReceiver } from './watch.ts';
