/**
 * What this client expects of any XenStore server, as one series of checks. Run against the
 * simulated xenstored in the tests, and by real-xenstored.ts against real ones: so that the
 * simulation, the real thing and the client cannot drift apart unseen.
 */
import { deepStrictEqual, ok, rejects, strictEqual } from 'node:assert/strict';
import { type XenStoreClient, XenStoreError } from 'xenstore-client';

/** A folder below which this domain may do everything. Relative: /local/domain/<domid>/data. */
const HOME = 'data/xenstore-client-conformance';
const WAIT_TIMEOUT_MS = 30_000;

export interface ConformanceCheck {
  readonly name: string;
  /** Two connections of the same domain; `first` and `second` see the same tree. */
  run(first: XenStoreClient, second: XenStoreClient): Promise<void>;
}

/** To be run in order, on two open connections; each leaves nothing behind but the empty folder. */
export const conformanceChecks: readonly ConformanceCheck[] = [
  { name: 'values come back as they were written', run: values },
  { name: 'nodes appear and vanish with what is below them', run: nodes },
  { name: 'a long directory is whole', run: longDirectory },
  { name: 'permissions come back as they were set', run: permissions },
  { name: 'watches fire at once, for changes below, and not after their end', run: watches },
  { name: 'the removal of a parent fires a watch', run: removalOfParent },
  { name: 'a transaction is seen when it is committed, whole', run: commit },
  { name: 'a transaction that throws leaves nothing', run: abort },
  { name: 'conflicts repeat a transaction, with a bound', run: conflicts },
  { name: 'waiting for a value', run: waiting },
  { name: 'domains', run: domains },
  { name: 'hundreds of requests at once', run: pipelining },
  { name: 'the folder can be removed', run: cleanUp },
];

async function values(store: XenStoreClient): Promise<void> {
  for (const value of ['', '4', 'x'.repeat(1900), 'Größe €', ' blanks \n']) {
    await store.write(`${HOME}/value`, value);
    strictEqual(await store.read(`${HOME}/value`), value);
  }
  const octets = Uint8Array.from({ length: 256 }, (_, index) => index);
  await store.write(`${HOME}/value`, octets);
  deepStrictEqual([...(await store.readBytes(`${HOME}/value`))], [...octets]);
  await rejects(store.read(`${HOME}/missing`), { code: 'ENOENT', path: `${HOME}/missing` });
  strictEqual(await store.tryRead(`${HOME}/missing`), undefined);
  await rejects(store.write(`${HOME}/value`, 'x'.repeat(5000)), { code: 'E2BIG' });
  strictEqual(await store.read(`${HOME}/value`), Buffer.from(octets).toString());
}

async function nodes(store: XenStoreClient): Promise<void> {
  await store.write(`${HOME}/a/b/c`, 'deep');
  strictEqual(await store.read(`${HOME}/a/b`), '', 'parents are made');
  await store.write(`${HOME}/a/b`, 'kept');
  await store.mkdir(`${HOME}/a/b`);
  strictEqual(await store.read(`${HOME}/a/b`), 'kept', 'mkdir leaves a value alone');
  await store.mkdir(`${HOME}/a/d`);
  deepStrictEqual((await store.directory(`${HOME}/a`)).toSorted(), ['b', 'd']);
  deepStrictEqual(await store.directory(`${HOME}/a/d`), []);
  await store.rm(`${HOME}/a/missing`);
  await rejects(store.rm(`${HOME}/missing/missing`), { code: 'ENOENT' });
  await rejects(store.directory(`${HOME}/missing`), { code: 'ENOENT' });
  await store.rm(`${HOME}/a`);
  await rejects(store.read(`${HOME}/a/b/c`), { code: 'ENOENT' });
}

async function longDirectory(store: XenStoreClient): Promise<void> {
  const names = Array.from({ length: 200 }, (_, index) => `${'long-name-'.repeat(4)}${index}`);
  await Promise.all(names.map((name) => store.write(`${HOME}/long/${name}`, '')));
  ok(names.join('\0').length > 2 * 4096, 'takes more than two packets');
  deepStrictEqual((await store.directory(`${HOME}/long`)).toSorted(), names.toSorted());
  const inside = await store.transaction((transaction) => transaction.directory(`${HOME}/long`));
  deepStrictEqual(inside.toSorted(), names.toSorted());
  await store.rm(`${HOME}/long`);
}

async function permissions(store: XenStoreClient): Promise<void> {
  await store.write(`${HOME}/p`, '');
  const [owner] = await store.getPermissions(`${HOME}/p`);
  ok(owner !== undefined);
  const list = [owner, { domid: 5, access: 'read' }, { domid: 6, access: 'both' }] as const;
  await store.setPermissions(`${HOME}/p`, list);
  deepStrictEqual(await store.getPermissions(`${HOME}/p`), list);
  await store.rm(`${HOME}/p`);
}

async function watches(store: XenStoreClient, other: XenStoreClient): Promise<void> {
  await store.mkdir(`${HOME}/w`);
  const events = await store.watchEvents(`${HOME}/w`);
  strictEqual((await events.next()).value, `${HOME}/w`, 'once at once, with its own path');
  await other.write(`${HOME}/w/x`, '1');
  strictEqual((await events.next()).value, `${HOME}/w/x`, 'relative, as the watch is');
  const seen: string[] = [];
  const watch = await store.watch(`${HOME}/w`, (path) => seen.push(path));
  await watch.close();
  seen.length = 0;
  await other.write(`${HOME}/w/y`, '1');
  strictEqual((await events.next()).value, `${HOME}/w/y`);
  deepStrictEqual(seen, []);
  await events.return();
  await store.rm(`${HOME}/w`);
}

async function removalOfParent(store: XenStoreClient, other: XenStoreClient): Promise<void> {
  await store.write(`${HOME}/r/s/t`, '1');
  const events = await store.watchEvents(`${HOME}/r/s/t`);
  strictEqual((await events.next()).value, `${HOME}/r/s/t`);
  await other.rm(`${HOME}/r`);
  strictEqual((await events.next()).value, `${HOME}/r/s/t`);
  strictEqual(await store.tryRead(`${HOME}/r/s/t`), undefined);
  await events.return();
}

async function commit(store: XenStoreClient, other: XenStoreClient): Promise<void> {
  await store.mkdir(`${HOME}/t`);
  const events = await other.watchEvents(`${HOME}/t/two`);
  await events.next();
  await store.transaction(async (transaction) => {
    await transaction.write(`${HOME}/t/one`, '1');
    await transaction.write(`${HOME}/t/two`, '2');
    strictEqual(await transaction.read(`${HOME}/t/one`), '1', 'seen inside');
    deepStrictEqual((await transaction.directory(`${HOME}/t`)).toSorted(), ['one', 'two']);
    strictEqual(await store.tryRead(`${HOME}/t/one`), undefined, 'not seen outside');
  });
  strictEqual((await events.next()).value, `${HOME}/t/two`);
  strictEqual(await other.read(`${HOME}/t/one`), '1');
  await events.return();
  await store.rm(`${HOME}/t`);
}

async function abort(store: XenStoreClient): Promise<void> {
  const failure = store.transaction(async (transaction) => {
    await transaction.write(`${HOME}/aborted`, '1');
    throw new Error('on purpose');
  });
  await rejects(failure, { message: 'on purpose' });
  strictEqual(await store.tryRead(`${HOME}/aborted`), undefined);
}

async function conflicts(store: XenStoreClient, other: XenStoreClient): Promise<void> {
  await store.write(`${HOME}/count`, '0');
  let runs = 0;
  await store.transaction(async (transaction) => {
    runs += 1;
    const count = Number(await transaction.read(`${HOME}/count`));
    if (runs <= 2) await other.write(`${HOME}/count`, String(runs * 10));
    await transaction.write(`${HOME}/count`, String(count + 1));
  });
  strictEqual(runs, 3);
  strictEqual(await store.read(`${HOME}/count`), '21', 'no update is lost');
  const hopeless = store.transaction(
    async (transaction) => {
      runs += 1;
      await transaction.read(`${HOME}/count`);
      await other.write(`${HOME}/count`, String(runs));
      await transaction.write(`${HOME}/count`, 'never');
    },
    { attempts: 3 },
  );
  await rejects(hopeless, { code: 'EAGAIN' });
  strictEqual(runs, 6);
  await store.rm(`${HOME}/count`);
}

async function waiting(store: XenStoreClient, other: XenStoreClient): Promise<void> {
  const timeoutMs = WAIT_TIMEOUT_MS;
  const wait = store.waitFor(`${HOME}/state`, (state) => state === '4', { timeoutMs });
  for (const state of ['1', '2', '4']) await other.write(`${HOME}/state`, state);
  strictEqual(await wait, '4');
  const gone = store.waitFor(`${HOME}/state`, (state) => state === undefined, { timeoutMs });
  await other.rm(`${HOME}/state`);
  strictEqual(await gone, undefined);
  const late = store.waitFor(`${HOME}/state`, (state) => state === '4', { timeoutMs: 20 });
  await rejects(late, { code: 'TIMEOUT', message: /does not exist/ });
}

async function domains(store: XenStoreClient): Promise<void> {
  strictEqual(await store.getDomainPath(7), '/local/domain/7');
  // xenstored answers dom0 only.
  const introduced = await store.isDomainIntroduced(32000).catch(refusalOf);
  ok(introduced === false || introduced === 'EACCES', String(introduced));
}

function refusalOf(error: unknown): string {
  if (error instanceof XenStoreError) return error.code;
  throw error;
}

async function pipelining(store: XenStoreClient, other: XenStoreClient): Promise<void> {
  const names = Array.from({ length: 300 }, (_, index) => `${HOME}/n/${index % 50}`);
  await Promise.all(names.map((name) => store.write(name, name)));
  deepStrictEqual(await Promise.all(names.map((name) => other.read(name))), names);
  await store.rm(`${HOME}/n`);
}

async function cleanUp(store: XenStoreClient): Promise<void> {
  await store.rm(HOME);
  strictEqual(await store.tryRead(HOME), undefined);
}
