/**
 * The states of a device's two ends (enum xenbus_state of xen/include/public/io/xenbus.h). Each end
 * writes only its own `state` key and watches the other's.
 */

export const XenbusState = {
  Unknown: 0,
  Initialising: 1,
  InitWait: 2,
  Initialised: 3,
  Connected: 4,
  Closing: 5,
  Closed: 6,
  Reconfiguring: 7,
  Reconfigured: 8,
} as const;
export type XenbusState = (typeof XenbusState)[keyof typeof XenbusState];

const STATE_NAMES: Readonly<Record<XenbusState, string>> = {
  0: 'Unknown',
  1: 'Initialising',
  2: 'InitWait',
  3: 'Initialised',
  4: 'Connected',
  5: 'Closing',
  6: 'Closed',
  7: 'Reconfiguring',
  8: 'Reconfigured',
};

/** The header's name of a state, e.g. `InitWait`. */
export function xenbusStateName(state: XenbusState): string {
  return STATE_NAMES[state];
}

/** For messages: the number and the name, e.g. `2 (InitWait)`. */
export function formatXenbusState(state: XenbusState): string {
  return `${state} (${STATE_NAMES[state]})`;
}

/**
 * A `state` key's value. A missing key (undefined) is Unknown, as in Linux: the directory is gone.
 * A value that is not a state is Unknown as well: it says nothing that could be acted on.
 */
export function parseXenbusState(value: string | undefined): XenbusState {
  if (value === undefined || value.length !== 1) {
    return XenbusState.Unknown;
  }
  const digit = value.charCodeAt(0) - 0x30;
  return isXenbusState(digit) ? digit : XenbusState.Unknown;
}

function isXenbusState(value: number): value is XenbusState {
  return value >= XenbusState.Unknown && value <= XenbusState.Reconfigured;
}
