/**
 * A writer of the cpio "newc" format, which Linux unpacks as its first file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Archives may be concatenated when
 * each is padded to four bytes, so a layer that never changes is written once.
 */

const MODE_DIRECTORY = 0o040000;
const MODE_FILE = 0o100000;
const MODE_SYMLINK = 0o120000;
const MODE_CHARACTER_DEVICE = 0o020000;

const MAGIC = '070701';
const TRAILER = 'TRAILER!!!';

/** One archive in the making. Paths are absolute; parent folders come by themselves. */
export class CpioArchive {
  readonly #chunks: Uint8Array[] = [];
  readonly #paths = new Set<string>(['']);
  #inode = 1;

  addDirectory(path: string): void {
    const name = this.#enter(path);
    if (name !== undefined) this.#entry(name, MODE_DIRECTORY | 0o755, new Uint8Array(0), 0, 0);
  }

  /** The first file of a name stays; a second one is an error of the image's recipe. */
  addFile(path: string, content: Uint8Array | string, mode: number): void {
    const name = this.#enter(path);
    if (name === undefined) throw new Error(`${path} is in the image twice`);
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    this.#entry(name, MODE_FILE | (mode & 0o7777), bytes, 0, 0);
  }

  addSymlink(path: string, target: string): void {
    const name = this.#enter(path);
    if (name === undefined) throw new Error(`${path} is in the image twice`);
    this.#entry(name, MODE_SYMLINK | 0o777, Buffer.from(target), 0, 0);
  }

  addCharacterDevice(path: string, major: number, minor: number): void {
    const name = this.#enter(path);
    if (name === undefined) throw new Error(`${path} is in the image twice`);
    this.#entry(name, MODE_CHARACTER_DEVICE | 0o600, new Uint8Array(0), major, minor);
  }

  has(path: string): boolean {
    return this.#paths.has(relative(path));
  }

  /** The archive's bytes, ending with the trailer. */
  finish(): Uint8Array {
    this.#inode = 0;
    this.#entry(TRAILER, 0, new Uint8Array(0), 0, 0);
    return Buffer.concat(this.#chunks);
  }

  #enter(path: string): string | undefined {
    const name = relative(path);
    if (this.#paths.has(name)) return undefined;
    const slash = name.lastIndexOf('/');
    if (slash > 0) this.addDirectory(name.slice(0, slash));
    this.#paths.add(name);
    return name;
  }

  #entry(name: string, mode: number, content: Uint8Array, major: number, minor: number): void {
    const nameBytes = Buffer.from(`${name}\0`);
    // Thirteen fields of eight hex digits: ino mode uid gid nlink mtime filesize devmajor devminor
    // rdevmajor rdevminor namesize check.
    const inode = this.#inode++;
    const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor];
    fields.push(nameBytes.length, 0);
    const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    const headerBytes = Buffer.from(header);
    this.#chunks.push(headerBytes, nameBytes);
    this.#chunks.push(padding(headerBytes.length + nameBytes.length));
    this.#chunks.push(content, padding(content.length));
  }
}

function relative(path: string): string {
  return path.replace(/^\/+/, '').replace(/\/+$/, '');
}

function padding(lengthBytes: number): Uint8Array {
  return new Uint8Array((4 - (lengthBytes % 4)) % 4);
}
