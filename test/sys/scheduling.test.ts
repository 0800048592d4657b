// A thread is bound to a processor, and free again.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { currentProcessor, ProcessorBinding } from '../../src/sys/index.ts';

/** Where this thread may run, as the kernel prints it. */
function allowedList(): string {
  const status = readFileSync('/proc/thread-self/status', 'utf8');
  return /Cpus_allowed_list:\s*(\S+)/.exec(status)?.[1] ?? '';
}

void t.test('a thread stays on the processor it is bound to until it is released', async (t) => {
  const before = allowedList();
  const processor = currentProcessor();
  const binding = new ProcessorBinding();
  t.ok(binding.bind(processor));
  t.equal(allowedList(), String(processor));
  t.equal(currentProcessor(), processor);
  binding.release();
  t.equal(allowedList(), before);
});

void t.test('a processor that does not exist changes nothing', async (t) => {
  const before = allowedList();
  const binding = new ProcessorBinding();
  for (const processor of [-1, 1023, 5000]) t.notOk(binding.bind(processor), `${processor}`);
  t.equal(allowedList(), before);
});
