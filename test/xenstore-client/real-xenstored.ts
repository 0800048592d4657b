/**
 * Runs the conformance checks against a real XenStore and prints what it did:
 *
 *   node build/test/xenstore-client/real-xenstored.js [SOCKET or DEVICE]
 *
 * In dom0 or a guest it needs nothing. Elsewhere a real xenstored runs too, with hypervisor-shim.c
 * in
 * place of the hypervisor. Exit code 0 if all is well, 1 at the first difference.
 */
import { connectXenStore } from 'xenstore-client';
import { conformanceChecks } from './conformance.ts';

const path = process.argv[2];
const first = await connectXenStore({ path });
const second = await connectXenStore({ path });
for (const check of conformanceChecks) {
  await check.run(first, second);
  console.log(`ok - ${check.name}`);
}
await first.close();
await second.close();
