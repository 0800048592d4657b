/** Shell scripts for the agent. */
import { execFile } from 'node:child_process';
import type { AgentHandlers } from './protocol.ts';

/** A guest may write 2048 bytes into a node of XenStore; this leaves room for what is around it. */
const OUTPUT_JSON_BYTES = 1800;

export const runScript: AgentHandlers['sh'] = ({ script }) =>
  new Promise((resolve) => {
    const options = { maxBuffer: 16 << 20 };
    execFile('sh', ['-c', `exec 2>&1 </dev/null\n${script}`], options, (error, stdout) => {
      const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ status, output: endOf(stdout.trim()) });
    });
  });

/** The end of a text, as much as an answer has room for, in plain ASCII. */
function endOf(text: string): string {
  let end = text.replace(/[^\n -~]/g, '?').slice(-OUTPUT_JSON_BYTES);
  while (JSON.stringify(end).length > OUTPUT_JSON_BYTES) end = end.slice(100);
  return end;
}
