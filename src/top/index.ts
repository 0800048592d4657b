/** `top`: what a running daemon does, live in a terminal. */

export { findDaemon } from './find-daemon.ts';
export { drawScreen, type ScreenOptions, type View } from './screen.ts';
export { withSimulatedDaemon } from './simulated-daemon.ts';
export { runTop, type TopOptions } from './top.ts';
