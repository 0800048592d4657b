/**
 * Goal: the status page in a browser: it draws, its numbers move under load and say what is served,
 * it fits a phone, asks nobody but the daemon, and the browser has nothing to complain of.
 */
import t from 'tap';
import { loggedSoon, startSimulated } from '../daemon/support/simulated.ts';
import { CHROMIUM, HeadlessPage } from './headless-browser.ts';

const skip = CHROMIUM === undefined ? 'chromium is not installed' : false;

/** Whether something was drawn, as a number of pixels that are not transparent. */
const drawn = (id: string): string => `(() => {
  const canvas = document.getElementById('${id}');
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pixels = copy.getContext('2d', { willReadFrequently: true });
  pixels.drawImage(canvas, 0, 0);
  const { data } = pixels.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 3; at < data.length; at += 4) if (data[at] > 0) count += 1;
  return count;
})()`;
const text = (id: string): string => `document.getElementById('${id}').textContent`;

for (const [device, width, height] of [
  ['a desk', 1280, 900],
  ['a phone', 390, 844],
] as const) {
  void t.test(`on ${device}`, { skip }, async (t) => {
    const { daemon, open } = await startSimulated(t, ['--metrics', '127.0.0.1:0', '--queues', '1']);
    const [line] = await loggedSoon(daemon, 'metrics-open');
    const url = String(line?.['address']);
    const page = await HeadlessPage.open(CHROMIUM ?? '', url, width, height);
    t.teardown(() => page.close());
    const until = async (condition: string): Promise<void> => {
      const deadline = Date.now() + 30_000;
      while (Date.now() < deadline) {
        if (await page.evaluate<boolean>(condition)) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error(`${condition} did not come true; ${page.complaints.join('\n')}`);
    };
    await until(`${text('state')} === 'serving' && ${text('iops')} === '0'`);
    t.match(await page.evaluate(text('disk')), /xvda, 8 MiB/);
    const heatBefore = await page.evaluate<number>(drawn('heat'));

    const client = await open();
    let isLoaded = true;
    const load = (async () => {
      while (isLoaded) await client.read(0, 4096);
    })();
    await until(`!['-', '0'].includes(${text('iops')}) && ${text('p99')} !== '-'`);
    t.match(await page.evaluate(text('read')), /\d .iB\/s/);
    t.equal(await page.evaluate(text('clients')), '1');
    await until(`${drawn('heat')} > ${heatBefore}`);
    for (const id of ['throughput', 'rate', 'latency', 'heat']) {
      t.ok((await page.evaluate<number>(drawn(id))) > 500, `${id} is drawn`);
    }
    t.match(await page.evaluate(text('slots')), /^\d+ of 128 slots/);
    t.match(await page.evaluate(text('features')), /flush-cache/);
    isLoaded = false;
    await load;
    await client.disconnect();
    await until(`${text('clients')} === '0'`);

    const overflow = await page.evaluate<number>(
      'document.documentElement.scrollWidth - innerWidth',
    );
    t.ok(overflow <= 0, `nothing sticks out (${overflow} pixels)`);
    const strangers = page.requested.filter((address) => !address.startsWith(url));
    t.strictSame(strangers, [], 'no request to anybody else');
    t.strictSame(page.complaints, [], 'no complaint');
  });
}
