// Where the lab keeps its things. Everything lives in the git-ignored folder .lab of the
// repository and may be deleted at any time: the next run builds it anew.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root, seen from build/test/xen/lab. */
export const repositoryRoot: string = fileURLToPath(new URL('../../../../', import.meta.url));

/** Downloads, unpacked packages and images. */
export const labFolder: string = join(repositoryRoot, '.lab');

/** Sources of files that go into the image as they are. */
export const dom0SourceFolder: string = join(repositoryRoot, 'test/xen/dom0');

/** Where the project is installed in dom0. */
export const projectInDom0 = '/opt/xenblk-nbd';
