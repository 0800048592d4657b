/**
 * Goal: a request's way through the ring allocates nothing, whatever the indices: V8 keeps numbers
 * of 2^31 and more in objects of their own unless care is taken.
 * Method: heap growth over short stretches of work, too short for a collection to hide it.
 */

import t from 'tap';
import {
  blkifLayout,
  createRequest,
  createResponse,
  decodeRequest,
  decodeResponse,
  encodeDirectRequest,
  encodeResponse,
  encodeSegment,
  segmentOffset,
} from '../../src/blkif/index.ts';
import { freshPair } from './support/ring-pair.ts';

const LAYOUT = blkifLayout('x86_64-abi');
const BATCH = 16;

/** Sends a batch of requests there and back. */
function workFrom(startIndex: number): () => void {
  const { front, back } = freshPair(startIndex);
  const request = createRequest();
  const response = createResponse();
  return () => {
    for (let id = 0; id < BATCH; id++) {
      const at = front.reserveSlot();
      encodeDirectRequest(front.view, at, LAYOUT, 0, 51712, id, id * 8, 1);
      encodeSegment(front.view, segmentOffset(at, LAYOUT, 0), id, 0, 7);
    }
    front.publish();
    const requests = back.pendingRequests();
    for (let position = 0; position < requests; position++) {
      decodeRequest(back.view, back.requestOffset(position), LAYOUT, request);
    }
    back.consume(requests);
    for (let position = 0; position < requests; position++) {
      encodeResponse(back.view, back.reserveSlot(), LAYOUT, position, 0, 0);
    }
    back.publish();
    back.finalCheck();
    const responses = front.pendingResponses();
    for (let position = 0; position < responses; position++) {
      decodeResponse(front.view, front.responseOffset(position), response);
    }
    front.consume(responses);
    front.finalCheck();
  };
}

/** Bytes allocated by a request, on average, once the code is compiled. */
function bytesPerRequest(work: () => void): number {
  for (let warmUp = 0; warmUp < 10_000; warmUp++) {
    work();
  }
  const growths: number[] = [];
  for (let stretch = 0; stretch < 21; stretch++) {
    const before = process.memoryUsage().heapUsed;
    for (let batch = 0; batch < 200; batch++) {
      work();
    }
    growths.push(process.memoryUsage().heapUsed - before);
  }
  // The median: a stretch with a collection or a compilation in it says nothing.
  growths.sort((a, b) => a - b);
  return (growths[10] ?? 0) / (200 * BATCH);
}

void t.test('nothing is allocated, around every edge of the indices', (t) => {
  bytesPerRequest(workFrom(0xffff_fff0));
  for (const start of [0, 0x7fff_0000, 0x8000_0000, 0xffff_0000]) {
    const bytes = bytesPerRequest(workFrom(start));
    // Asking for the heap's size itself takes some hundred bytes.
    t.ok(bytes < 1, `${bytes} bytes a request from ${start}`);
  }
  t.end();
});
