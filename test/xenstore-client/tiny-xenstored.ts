/**
 * A real server on a real Unix socket, just able enough for the transports: a flat map of nodes,
 * watches on exact paths, no transactions. It speaks through the package's own server half.
 */
import { createServer, type Server, type Socket } from 'node:net';
import {
  encodeReply,
  encodeWatchEvent,
  type Packet,
  PacketFramer,
  parseRequest,
  type XsReply,
  type XsRequest,
  XsType,
} from 'xenstore-client/wire';

export class TinyXenstored {
  readonly nodes: Map<string, Uint8Array> = new Map();
  readonly #watches: { path: string; token: string; socket: Socket }[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;

  constructor() {
    this.#server = createServer((socket) => this.#serve(socket));
  }

  async listen(path: string): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(path, resolve));
  }

  async close(): Promise<void> {
    this.dropConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  get connectionCount(): number {
    return this.#sockets.size;
  }

  #serve(socket: Socket): void {
    const framer = new PacketFramer();
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => {
      framer.push(chunk);
      for (let packet = framer.next(); packet !== undefined; packet = framer.next()) {
        this.#answer(socket, packet);
      }
    });
  }

  #answer(socket: Socket, packet: Packet): void {
    const request = parseRequest(packet);
    socket.write(encodeReply(this.#execute(socket, request), packet.reqId, packet.txId));
    if (request.type === XsType.WATCH) socket.write(encodeWatchEvent(request));
    if (request.type === XsType.WRITE) this.#fire(request.path);
  }

  #execute(socket: Socket, request: XsRequest): XsReply {
    if (request.type === XsType.READ) {
      const value = this.nodes.get(request.path);
      if (value === undefined) return { type: XsType.ERROR, name: 'ENOENT' };
      return { type: request.type, value };
    }
    if (request.type === XsType.WRITE) {
      this.nodes.set(request.path, Uint8Array.from(request.value));
      return { type: request.type };
    }
    if (request.type === XsType.WATCH) {
      this.#watches.push({ path: request.path, token: request.token, socket });
      return { type: request.type };
    }
    if (request.type === XsType.UNWATCH) return { type: request.type };
    return { type: XsType.ERROR, name: 'ENOSYS' };
  }

  #fire(path: string): void {
    for (const watch of this.#watches) {
      if (watch.path === path) watch.socket.write(encodeWatchEvent({ path, token: watch.token }));
    }
  }
}
