/** What a running daemon shows of itself: Prometheus metrics, its health, and a status page. */

export { type Monitor, type MonitorOptions, openMonitor } from './monitor.ts';
export type { LatencySummary, Report, Sample, VbdReport, VbdSample } from './report.ts';
export type { MonitoredClient, MonitoredVbd, MonitorSource } from './source.ts';
