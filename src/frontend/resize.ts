/** A live change of the disk's size. */

import type { Attachment } from './attachment.ts';
import { parseResize } from './backend-keys.ts';
import { toFrontendError } from './failures.ts';
import type { FrontendLog } from './log.ts';

/**
 * The attachment with the size that `sectors` tells now, or undefined when that is the same or
 * cannot be true; then the old size is kept, and the log says so.
 */
export function resizeAttachment(
  attachment: Attachment,
  sectors: string | undefined,
  log: FrontendLog,
): Attachment | undefined {
  const { backendPath, disk, vbd } = attachment;
  if (sectors === undefined) {
    // The directory is about to vanish.
    return undefined;
  }
  try {
    const told = parseResize(backendPath, sectors, disk);
    if (told === disk.sectors) {
      return undefined;
    }
    log.info(`${vbd.name}: resized from ${disk.sectors} to ${told} sectors.`);
    return { ...attachment, disk: { ...disk, sectors: told } };
  } catch (error) {
    log.warn(`${toFrontendError(vbd.name, error).message} The old size is kept.`);
    return undefined;
  }
}
