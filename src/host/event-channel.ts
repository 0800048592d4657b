/**
 * An event channel is a one-bit doorbell between two domains (xen/include/public/event_channel.h).
 *
 * The control plane binds a channel and knows it as a handle: plain data that can be posted to a
 * worker thread. The lane that owns the channel opens the handle in its own thread, by importing
 * the module the handle names, and gets the operations. So the data plane never knows which host
 * it runs on.
 */

/** A bound event channel, as plain data that may cross threads. */
export interface EventChannelHandle {
  /** Local port number: what goes into the `event-channel` key in XenStore. */
  readonly port: number;
  /** Descriptor that polls readable while the channel has a pending, unmasked event. */
  readonly fd: number;
  /** URL of a module that satisfies {@link EventChannelModule}. */
  readonly moduleUrl: string;
  /** Whatever else that module needs: numbers only, e.g. descriptors and addresses. */
  readonly detail: Readonly<Record<string, number>>;
}

/**
 * Operations on one end of a channel, for the one thread that owns it. Nothing here allocates.
 *
 * Semantics are those of /dev/xen/evtchn: after {@link consume} the channel stays masked, so that
 * further events do not wake the owner; they stay pending and are delivered by {@link unmask}.
 * Nothing is lost: consume, look at the ring, unmask, sleep is a correct loop.
 */
export interface EventChannel {
  /** Descriptor to poll for readability. */
  readonly fd: number;
  /** Rings the other end. */
  notify(): void;
  /** Takes the pending event, if any, and masks the channel. Returns whether there was one. */
  consume(): boolean;
  /** Lets events through again; one that arrived meanwhile makes {@link fd} readable at once. */
  unmask(): void;
}

/** What the module named by {@link EventChannelHandle.moduleUrl} exports. */
export interface EventChannelModule {
  openEventChannel(handle: EventChannelHandle): EventChannel;
}
