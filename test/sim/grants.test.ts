/**
 * Goal: grants keep the promises of /dev/xen/gntalloc: zeroed, contiguous, budgeted, mapped only by
 * the domain they are for and only as allowed, never given out again while mapped. Method: grant,
 * map and revoke by hand; the two mappings of a page are compared.
 */

import t from 'tap';
import { FIRST_GREF, GrantMap } from '../../src/sim/grant-map.ts';
import { GrantTable } from '../../src/sim/grants.ts';
import { bytesOf } from './hand-front.ts';

void t.test('both sides see the same page', async (t) => {
  const table = new GrantTable(16);
  const pages = table.grant(0, 3, 'read-write');
  t.equal(pages.pageCount, 3);
  t.same([...pages.grefs], [FIRST_GREF, FIRST_GREF + 1, FIRST_GREF + 2]);
  const bytes = bytesOf(pages);
  t.ok(bytes.every((byte) => byte === 0));
  const map = new GrantMap(table.placement, 0);
  const offset = map.map(pages.grefs[1] ?? 0, true);
  map.view.setUint8(offset + 5, 0x5a);
  t.equal(bytes[4096 + 5], 0x5a);
  bytes[4096 + 6] = 0x6b;
  t.equal(map.view.getUint8(offset + 6), 0x6b);
  t.same(table.use(), { grantedPages: 3, deferredPages: 0, mappings: 1 });
  map.unmap(pages.grefs[1] ?? 0);
  pages.revoke();
  t.same(table.use(), { grantedPages: 0, deferredPages: 0, mappings: 0 });
  t.throws(() => pages.revoke(), { code: 'FAILED' });
  table.close();
});

void t.test('pages that are retired stay where they are, for this process alone', async (t) => {
  const table = new GrantTable(4);
  const pages = table.grant(0, 2, 'read-write');
  const gref = pages.grefs[1] ?? 0;
  const bytes = bytesOf(pages);
  bytes[4096] = 0x5a;
  const map = new GrantMap(table.placement, 0);
  const offset = map.map(gref, true);
  pages.retire();
  t.equal(bytes[4096], 0x5a, 'what they held is still there');
  map.view.setUint8(offset, 0xee);
  t.equal(bytes[4096], 0x5a, 'a back end that has them mapped reaches them no more');
  t.same(table.use(), { grantedPages: 0, deferredPages: 1, mappings: 1 });
  t.throws(() => pages.revoke(), { code: 'FAILED' });
  table.close();
});

void t.test('what may not be mapped', async (t) => {
  const table = new GrantTable(16);
  const readOnly = table.grant(0, 1, 'read-only').grefs[0] ?? 0;
  const other = table.grant(5, 1, 'read-write').grefs[0] ?? 0;
  const map = new GrantMap(table.placement, 0);
  t.ok(map.map(readOnly, false) >= 0);
  t.equal(map.map(readOnly, true), -1, 'read-only');
  t.equal(map.map(other, false), -1, 'for domain 5');
  t.ok(new GrantMap(table.placement, 5).map(other, true) >= 0);
  for (const gref of [0, FIRST_GREF - 1, FIRST_GREF + 15, FIRST_GREF + 16, 0xffffffff]) {
    t.equal(map.map(gref, false), -1, `reference ${gref}`);
  }
  table.close();
});

void t.test('a page that is mapped is not given out again', async (t) => {
  const table = new GrantTable(4);
  const pages = table.grant(0, 4, 'read-write');
  const map = new GrantMap(table.placement, 0);
  const gref = pages.grefs[2] ?? 0;
  const offset = map.map(gref, true);
  map.map(gref, true);
  pages.revoke();
  t.same(table.use(), { grantedPages: 0, deferredPages: 1, mappings: 2 });
  t.equal(map.map(gref, true), -1, 'nor mapped once more');
  map.view.setUint8(offset, 0xee);
  t.throws(() => table.grant(0, 4, 'read-write'), {
    code: 'LIMIT',
    message: /3 of 4 are free and 1 are still mapped by the back end/,
  });
  const three = table.grant(0, 3, 'read-write');
  t.notOk([...three.grefs].includes(gref));
  map.unmap(gref);
  t.equal(table.use().deferredPages, 1, 'mapped twice, unmapped once');
  map.unmap(gref);
  t.equal(table.use().deferredPages, 0);
  const last = table.grant(0, 1, 'read-write');
  t.equal(last.grefs[0], gref);
  t.equal(bytesOf(last)[0], 0, 'zeroed again');
  table.close();
});

void t.test('pages are contiguous also when the free ones are not', async (t) => {
  const table = new GrantTable(8);
  const single = Array.from({ length: 8 }, () => table.grant(0, 1, 'read-write'));
  for (const index of [1, 3, 4, 6]) single[index]?.revoke();
  const pages = table.grant(0, 4, 'read-write');
  const bytes = bytesOf(pages);
  for (let page = 0; page < 4; page++) bytes[page * 4096] = page + 1;
  const map = new GrantMap(table.placement, 0);
  const seen = [...pages.grefs].map((gref) => map.view.getUint8(map.map(gref, false)));
  t.same(seen, [1, 2, 3, 4]);
  t.throws(() => table.grant(0, 1, 'read-write'), { code: 'LIMIT' });
  const ring = table.mapContiguous(0, [...pages.grefs].reverse());
  t.ok(ring);
  if (ring !== undefined) {
    t.same(
      [...bytesOf({ ...pages, ...ring })].filter((byte) => byte !== 0),
      [4, 3, 2, 1],
    );
    ring.unmap();
  }
  t.equal(table.mapContiguous(0, [pages.grefs[0] ?? 0, 99]), undefined);
  t.equal(table.use().mappings, 4, 'a mapping that fails leaves nothing behind');
  table.close();
});

void t.test('limits that cannot be', async (t) => {
  for (const limit of [0, -1, 1.5, 2 ** 20]) {
    t.throws(() => new GrantTable(limit), { code: 'LIMIT' }, `${limit}`);
  }
  const table = new GrantTable(2);
  t.throws(() => table.grant(0, 0, 'read-write'), RangeError);
  t.throws(() => table.grant(0, 3, 'read-write'), { code: 'LIMIT' });
  t.same(table.budget().limitPages, 2);
  table.close();
});
