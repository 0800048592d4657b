/**
 * Virtual device numbers and their names (docs/misc/vbd-interface of Xen). The number is the
 * directory under `device/vbd`; people say `xvdb`.
 *
 *   xvd, disk and part < 16   202 << 8 | disk << 4 | part
 *   xvd, otherwise            1 << 28 | disk << 8 | part     disk < 2^20, part < 256
 *   sd, disk and part < 16    8 << 8 | disk << 4 | part
 *   hd, disk 0 and 1          3 << 8 | disk << 6 | part      part < 64
 *   hd, disk 2 and 3          22 << 8 | (disk - 2) << 6 | part
 *   2 << 28 and above         reserved
 */

const XVD_MAJOR = 202;
const SD_MAJOR = 8;
const HD_MAJOR = 3;
const HD_SECOND_MAJOR = 22;
const EXTENDED = 1 << 28;
/** The first number that is reserved. */
const RESERVED = 2 * EXTENDED;
const MAX_EXTENDED_DISK = 2 ** 20 - 1;
const MAX_EXTENDED_PARTITION = 255;

/** A text that names no virtual device. The message is one sentence for people. */
export class DeviceNameError extends Error {
  override readonly name = 'DeviceNameError';
  /** What was asked for. */
  readonly text: string;

  constructor(text: string, reason: string) {
    super(
      `"${text.slice(0, 64)}" is not a virtual block device: ${reason}; ` +
        'give a name such as xvdb or xvda1, or a number such as 51728.',
    );
    this.text = text;
  }
}

const DECIMAL = /^(?:0|[1-9][0-9]{0,9})$/;
const LETTERED = /^(xvd|sd|hd)([a-z]{1,5})([1-9][0-9]{0,3})?$/;
const NUMBERED = /^d(0|[1-9][0-9]{0,7})(?:p(0|[1-9][0-9]{0,3}))?$/;

/**
 * The number of a device: `xvda1`, `/dev/xvdb`, `sda`, `hdc`, `d3p1` or the decimal number itself.
 *
 * @throws DeviceNameError when the text is none of them, or out of the family's range.
 */
export function parseDeviceNumber(text: string): number {
  const name = text.startsWith('/dev/') ? text.slice('/dev/'.length) : text;
  if (DECIMAL.test(name)) {
    return checkNumber(text, Number(name));
  }
  const numbered = NUMBERED.exec(name);
  if (numbered !== null) {
    return xvdNumber(text, Number(numbered[1]), Number(numbered[2] ?? 0));
  }
  const lettered = LETTERED.exec(name);
  if (lettered === null) {
    throw new DeviceNameError(text, 'the spelling is unknown');
  }
  const disk = parseDiskLetters(lettered[2] ?? '');
  const partition = Number(lettered[3] ?? 0);
  const family = lettered[1] ?? '';
  switch (family) {
    case 'sd':
      return sdNumber(text, disk, partition);
    case 'hd':
      return hdNumber(text, disk, partition);
    default:
      return xvdNumber(text, disk, partition);
  }
}

/**
 * The name of a device number, e.g. `xvda1`. A number outside the known families is its own name,
 * in decimal, so that the result always parses back to the number.
 */
export function formatDeviceNumber(deviceNumber: number): string {
  if (deviceNumber >= EXTENDED && deviceNumber < RESERVED) {
    const disk = (deviceNumber - EXTENDED) >>> 8;
    const partition = deviceNumber & 0xff;
    // Below 16 the short form has another number for the same name.
    return disk < 16 && partition < 16 ? String(deviceNumber) : formatName('xvd', disk, partition);
  }
  const minor = deviceNumber & 0xff;
  switch (deviceNumber >>> 8) {
    case XVD_MAJOR:
      return formatName('xvd', minor >>> 4, minor & 0xf);
    case SD_MAJOR:
      return formatName('sd', minor >>> 4, minor & 0xf);
    case HD_MAJOR:
      return minor < 128 ? formatName('hd', minor >>> 6, minor & 0x3f) : String(deviceNumber);
    case HD_SECOND_MAJOR:
      return minor < 128 ? formatName('hd', 2 + (minor >>> 6), minor & 0x3f) : String(deviceNumber);
    default:
      return String(deviceNumber);
  }
}

function formatName(family: string, disk: number, partition: number): string {
  return `${family}${formatDiskLetters(disk)}${partition === 0 ? '' : partition}`;
}

function checkNumber(text: string, deviceNumber: number): number {
  if (deviceNumber >= RESERVED) {
    throw new DeviceNameError(text, `numbers from ${RESERVED} on are reserved`);
  }
  return deviceNumber;
}

function xvdNumber(text: string, disk: number, partition: number): number {
  if (disk > MAX_EXTENDED_DISK) {
    throw new DeviceNameError(text, `disks end at ${MAX_EXTENDED_DISK}`);
  }
  if (partition > MAX_EXTENDED_PARTITION) {
    throw new DeviceNameError(text, `partitions end at ${MAX_EXTENDED_PARTITION}`);
  }
  return disk < 16 && partition < 16
    ? (XVD_MAJOR << 8) | (disk << 4) | partition
    : EXTENDED | (disk << 8) | partition;
}

function sdNumber(text: string, disk: number, partition: number): number {
  if (disk > 15 || partition > 15) {
    throw new DeviceNameError(text, 'sd disks go from sda to sdp with partitions to 15');
  }
  return (SD_MAJOR << 8) | (disk << 4) | partition;
}

function hdNumber(text: string, disk: number, partition: number): number {
  if (disk > 3 || partition > 63) {
    throw new DeviceNameError(text, 'hd disks go from hda to hdd with partitions to 63');
  }
  return disk < 2
    ? (HD_MAJOR << 8) | (disk << 6) | partition
    : (HD_SECOND_MAJOR << 8) | ((disk - 2) << 6) | partition;
}

/** Base 26 without a zero: a..z are 0..25, aa is 26. */
function parseDiskLetters(letters: string): number {
  let disk = 0;
  for (const letter of letters) {
    disk = disk * 26 + (letter.charCodeAt(0) - 0x60);
  }
  return disk - 1;
}

function formatDiskLetters(disk: number): string {
  let letters = '';
  for (let rest = disk + 1; rest > 0; rest = Math.floor((rest - 1) / 26)) {
    letters = String.fromCharCode(0x61 + ((rest - 1) % 26)) + letters;
  }
  return letters;
}
