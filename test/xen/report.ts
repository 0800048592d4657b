// What dom0 tells the lab, one JSON object a line over the second serial line. Both sides use this
// file: dom0 to write, the lab to read.

/** One line of the report. */
export type ReportEvent =
  | { event: 'dom0-up'; uptimeSeconds: number }
  | { event: 'plan'; names: string[] }
  | { event: 'scenario-start'; name: string }
  | { event: 'step'; text: string }
  | { event: 'scenario-end'; name: string; ok: boolean; durationMs: number; error?: string }
  | { event: 'run-end'; passed: number; failed: number };

const kinds = new Set(['dom0-up', 'plan', 'scenario-start', 'step', 'scenario-end', 'run-end']);

export function formatReportEvent(event: ReportEvent): string {
  return JSON.stringify(event);
}

/** The event of a line; undefined for a line that is none, e.g. noise of a crashing guest. */
export function parseReportEvent(line: string): ReportEvent | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('event' in value)) return undefined;
  return kinds.has(String(value.event)) ? (value as ReportEvent) : undefined;
}
