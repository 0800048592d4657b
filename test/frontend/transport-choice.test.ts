/** Goal: wishes are cut to offers, and said so. Method: rows of wishes and offers. */

import t from 'tap';
import { chooseTransport, shrinkTransport } from '../../src/frontend/index.ts';

const LIMITS = { maxRingPageOrder: 2, maxQueues: 4, maxIndirectSegments: 256 };
const WISH = { queues: 1, ringPageOrder: 0, maxIndirectSegments: 0, isPersistent: false };

void t.test('a wish within the offer is taken as it is', (t) => {
  t.same(chooseTransport({ ...WISH, queues: 4, ringPageOrder: 2 }, LIMITS), {
    queueCount: 4,
    ringPageOrder: 2,
    maxIndirectSegments: 0,
    isPersistent: false,
    cuts: [],
  });
  t.end();
});

void t.test('a larger wish is cut, with a sentence for each cut', (t) => {
  const wish = { queues: 8, ringPageOrder: 4, maxIndirectSegments: 1024, isPersistent: true };
  t.same(chooseTransport(wish, LIMITS), {
    queueCount: 4,
    ringPageOrder: 2,
    maxIndirectSegments: 256,
    isPersistent: true,
    cuts: [
      'Queues cut from 8 to 4, which is what the back end offers.',
      'Ring page order cut from 4 to 2, which is what the back end offers.',
      'Indirect segments cut from 1024 to 256, which is what the back end offers.',
    ],
  });
  t.end();
});

void t.test('wishes below the least are raised, and above the protocol cut', (t) => {
  const choice = chooseTransport(
    { ...WISH, queues: 0, ringPageOrder: -1, maxIndirectSegments: -5 },
    LIMITS,
  );
  t.match(choice, { queueCount: 1, ringPageOrder: 0, maxIndirectSegments: 0, cuts: [] });
  const huge = chooseTransport({ ...WISH, ringPageOrder: 9 }, { ...LIMITS, maxRingPageOrder: 4 });
  t.match(huge, { ringPageOrder: 4, cuts: [] });
  t.end();
});

void t.test('shrinking goes down to one queue of one page', (t) => {
  const seen: string[] = [];
  let choice: ReturnType<typeof shrinkTransport> = chooseTransport(
    { ...WISH, queues: 3, ringPageOrder: 2 },
    LIMITS,
  );
  while (choice !== undefined) {
    seen.push(`${choice.queueCount}x${2 ** choice.ringPageOrder}`);
    choice = shrinkTransport(choice);
  }
  t.same(seen, ['3x4', '3x2', '3x1', '1x1']);
  t.end();
});
