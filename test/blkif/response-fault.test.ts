/**
 * Goal: a response counts only when its request is in flight, its operation is the one asked for
 * and its status exists; anything else is named. Method: a table.
 */

import t from 'tap';
import { INVALID_U64, responseFault } from '../../src/blkif/index.ts';

const READ = 0;

void t.test('what can be an answer', (t) => {
  for (const status of [0, -1, -2]) {
    t.equal(responseFault({ id: 3, operation: READ, status }, READ), undefined, `status ${status}`);
  }
  t.end();
});

void t.test('what cannot', (t) => {
  const rows: [Parameters<typeof responseFault>, string][] = [
    [
      [{ id: 3, operation: READ, status: 0 }, undefined],
      'it answered request 3, which is not in flight',
    ],
    [
      [{ id: INVALID_U64, operation: READ, status: 0 }, undefined],
      `it answered request ${INVALID_U64}, which is not in flight`,
    ],
    [[{ id: 3, operation: 1, status: 0 }, READ], 'it answered operation 1 to a request for 0'],
    // The operation of an indirect request is the one inside it.
    [[{ id: 3, operation: 6, status: 0 }, READ], 'it answered operation 6 to a request for 0'],
    ...[1, -3, 0x7fff, -0x8000].map((status): [Parameters<typeof responseFault>, string] => [
      [{ id: 3, operation: READ, status }, READ],
      `it answered with the unknown status ${status}`,
    ]),
  ];
  for (const [args, fault] of rows) t.equal(responseFault(...args), fault);
  t.end();
});
