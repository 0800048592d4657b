/**
 * Runs asynchronous tasks one after the other, in the order in which they were given: what the
 * kernel's xenwatch thread does for the drivers of a back end.
 */
export class SerialQueue {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs a task after all earlier ones, whether those failed or not. Gives the task's result. */
  run<Result>(task: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
