/** The kinds of trouble that a history may have; troubles.ts makes them. */

export const TROUBLE_NAMES = [
  'force-closing',
  'force-closed',
  'rebind',
  'rebind-reattach',
  'power-loss',
  'crash-late',
  'detach-attach',
  'force-detach-attach',
  'backend-gone',
  'backend-gone-late',
  'move-backend',
  'restore',
  'checkpoint',
  'grow',
  'shrink',
  'absurd-size',
  'slow',
  'errors',
  'kill',
  'lie',
  'unplug',
  'other-queues',
] as const;

export type TroubleName = (typeof TROUBLE_NAMES)[number];
