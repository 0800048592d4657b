// Goal: no client can fill the log. Method: many refused clients, with a clock that the test moves.

import t from 'tap';
import { ManualClock } from './support/manual-clock.ts';
import { startServer } from './support/test-server.ts';

void t.test('lines about clients are bounded in time', async (t) => {
  const clock = new ManualClock();
  const server = await startServer(t, { clock, limits: { connections: 0 } });
  const refuse = async (): Promise<void> => {
    await (await server.connect()).closed();
  };
  for (let count = 0; count < 60; count += 1) await refuse();
  t.equal(server.log.length, 50);
  clock.advance(1000);
  await refuse();
  t.equal(server.log.length, 52);
  t.match(server.log[50]?.message, /^10 lines about clients were left out/);
  t.match(server.log[51]?.peer, /^unix #61$/);
});
