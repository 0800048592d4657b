// A program that uses everything of the real host and then exits without closing any of it: the
// process must end at once, although a thread waits for /dev/xen/xenbus.
import { XenStoreClient } from 'xenstore-client';
import { createLinuxHost } from '../../../../src/xen/index.ts';

const host = createLinuxHost();
const store = new XenStoreClient(await host.openXenStore());
await store.watch('domid', () => {});
const pages = host.grantPages(0, 2, 'read-write');
const channel = host.bindEventChannel(0);
const domid = await store.read('domid');
process.stdout.write(`domid ${domid}, ${pages.pageCount} pages, port ${channel.port > 0}\n`);
process.exit(7);
