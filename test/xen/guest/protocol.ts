/**
 * How dom0 talks to the agent inside a guest: one request at a time as JSON in a XenStore node of
 * the guest's, the answer in another. There is no network in the lab.
 */

/** Below the guest's own directory in XenStore, where it may write. */
export const AGENT_PATH = 'data/lab';

/** What the agent can do, with its arguments and results. */
export interface AgentCommands {
  /** Starts `xenblk-nbd serve` with these arguments; resolves when it is ready. */
  serve: { args: { vbd: string; options: string[] }; result: { readyMs: number } };
  /** Starts a verified load of the daemon for `vbd`. */
  startLoad: {
    args: {
      vbd: string;
      blockBytes: number;
      blockCount: number;
      connections: number;
      depth: number;
    };
    result: null;
  };
  /** How far the load is. */
  loadState: { args: null; result: { completed: number; failure: string | null } };
  /** Ends the load; gives the digest of what the disk must hold. */
  finishLoad: { args: null; result: { completed: number; sha256: string } };
  /**
   * How often the daemon for `vbd` has connected, and whether it has ended; then also how long it
   * took to let go of a vbd that was detached, if that was why.
   */
  daemonState: {
    args: { vbd: string };
    result: {
      connections: number;
      exit: string | null;
      detachMs: number | null;
      log: string;
    };
  };
  /** SIGTERM to the daemon for `vbd`; how it ended. */
  stop: { args: { vbd: string }; result: { exit: string } };
  /** Lines of the guest's kernel log that tell of trouble. */
  kernelTrouble: { args: null; result: { lines: number; trouble: string | null } };
  /** Runs a shell script; its exit code, and the end of what it printed. */
  sh: { args: { script: string }; result: { status: number; output: string } };
  /** A small write and read through the daemon for `vbd`, by a client of its own. */
  touch: { args: { vbd: string; fill: number }; result: null };
}

export type AgentCommand = keyof AgentCommands;

/** What does each of these commands. */
export type AgentHandlers<Command extends AgentCommand = AgentCommand> = {
  [Name in Command]: (args: AgentCommands[Name]['args']) => Promise<AgentCommands[Name]['result']>;
};

export interface AgentRequest {
  id: number;
  command: AgentCommand;
  args: unknown;
}

export type AgentResponse =
  | { id: number; ok: true; result: unknown }
  | { id: number; ok: false; error: string };
