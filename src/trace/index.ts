/** The file that `serve --trace` writes, and what `trace` makes of it. */

export { toFioLog } from './fio-log.ts';
export { readTrace, type Trace, TraceFileError, type TraceRecord } from './trace-reader.ts';
export { formatRecord, summariseTrace } from './trace-summary.ts';
export { TraceWriter, type TraceWriterEvents } from './trace-writer.ts';
