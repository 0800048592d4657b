// A TCP port that nobody uses at the moment.
import { createServer } from 'node:net';

/**
 * The kernel picks a free port on the loopback address. Another program could take it before the
 * caller does, which on a test machine does not happen.
 */
export function findFreePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address && typeof address === 'object') resolve(address.port);
        else reject(new Error('no TCP port'));
      });
    });
  });
}
