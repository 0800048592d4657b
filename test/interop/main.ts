// `npm run test:interop`: real NBD clients against `xenblk-nbd serve --simulate`.
//
//   --quick          short loads
//   --no-skip        a missing program is a failure, as in CI
//   --seed N         repeats the random choices of an earlier run
//   --only TEXT      only the cases whose name contains it
//   --server NAME    the same cases against another server: is the case wrong, or the server?
import { parseArgs } from 'node:util';
import { nbdkitFile, qemuNbd, type ServerKind, xenblkNbd } from '../support/nbd-server.ts';
import { commandLineCases } from './command-line-cases.ts';
import { copyCases } from './copy-cases.ts';
import { durabilityCases } from './durability-cases.ts';
import { fioCases } from './fio-cases.ts';
import { loadCases } from './load-cases.ts';
import { nbdinfoCases } from './nbdinfo-cases.ts';
import { nbdshCases } from './nbdsh-cases.ts';
import { protocolCases } from './protocol-cases.ts';
import { qemuIoCases } from './qemu-io-cases.ts';
import { runCases } from './runner.ts';
import { statusCases } from './status-cases.ts';
import { transportCases } from './transport-cases.ts';
import { troubleCases } from './trouble-cases.ts';

const ALL_CASES = [
  ...nbdinfoCases,
  ...copyCases,
  ...qemuIoCases,
  ...nbdshCases,
  ...protocolCases,
  ...statusCases,
  ...commandLineCases,
  ...durabilityCases,
  ...loadCases,
  ...fioCases,
  ...transportCases,
  ...troubleCases,
];

const SERVERS: readonly ServerKind[] = [xenblkNbd, nbdkitFile, qemuNbd];

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    'no-skip': { type: 'boolean', default: false },
    seed: { type: 'string' },
    only: { type: 'string', default: '' },
    server: { type: 'string', default: 'xenblk-nbd' },
  },
});
const server = SERVERS.find((kind) => kind.name === values.server);
if (!server) {
  const names = SERVERS.map((kind) => kind.name).join(', ');
  throw new Error(`there is no server ${values.server}; take one of: ${names}`);
}
const seed = Number(values.seed ?? Date.now() % 1_000_000);
const cases = ALL_CASES.filter(
  (entry) => entry.name.includes(values.only) && (server === xenblkNbd || !entry.isOurs),
);
console.log(`interop: ${cases.length} cases against ${server.name}, seed ${seed}`);
const totals = await runCases(cases, {
  server,
  seed,
  isQuick: values.quick,
  isSkipFailure: values['no-skip'],
});
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed > 0 || totals.passed + totals.skipped === 0 ? 1 : 0);
