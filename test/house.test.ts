// The rules of the house, as tests: what the compiler, the formatter and the linter cannot see, and
// that what they are trusted to see they really refuse.
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, normalize } from 'node:path';
import t from 'tap';
import { codeOnly, commentsOnly, importsOf, withoutComments } from './house/code-only.ts';
import { exportedNames } from './house/exported-names.ts';
import { GUARDED_PACKAGES, IMPORT_TABLE, PACKAGE_FOLDERS } from './house/import-table.ts';
import { filesBelow, folderOf, ROOT, type SourceFile } from './house/source-files.ts';

const MAX_LINE = 100;
/** For lines that hold a string which no formatter can break. */
const MAX_TEXT_LINE = 120;
const MAX_FILE_LINES = 400;

/** Files that may be longer, each with the reason. An entry that is no longer needed must go. */
const LONG_FILES: Readonly<Record<string, string>> = {
  'src/dataplane/engine.ts': 'the stages of a request call each other; what stands alone is apart',
  'src/dataplane/lane-worker.ts': 'one turn of the loop, in the order in which it runs',
  'src/dataplane/nbd-connection.ts': 'one state machine over one receive buffer',
  'src/dataplane/ring-requests.ts': 'one table of requests, asked once and asked again',
  'test/sim-histories/mutants.ts': 'a list of planted bugs',
  'test/sim-histories/simulated-lane.ts': 'one turn of the loop, as in lane-worker.ts',
  'test/xenstore-client/golden.test.ts': 'a table of packets',
};

const SOURCES = filesBelow('src', ['.ts']);
const TESTS = filesBelow('test', ['.ts', '.mjs']);
const ALL = [...SOURCES, ...filesBelow('bin', ['.ts']), ...TESTS];

/** `path:line: what` for each match of a pattern in a view of a file. */
function findings(
  files: readonly SourceFile[],
  view: (text: string) => string,
  pattern: RegExp,
): string[] {
  return files.flatMap(({ path, text }) =>
    view(text)
      .split('\n')
      .flatMap((line, index) => {
        const match = pattern.exec(line);
        return match ? [`${path}:${index + 1}: ${match[0].trim()}`] : [];
      }),
  );
}

void t.test('lines and files stay short enough to read', async (t) => {
  const longLines = ALL.flatMap(({ path, text }) => {
    const comments = commentsOnly(text).split('\n');
    return text.split('\n').flatMap((line, index) => {
      // The formatter breaks code, but neither comments nor texts; an address nobody can break.
      const isComment = (comments[index] ?? '').trim() !== '';
      const limit = isComment ? MAX_LINE : MAX_TEXT_LINE;
      const isLong = line.length > limit && !/https?:\/\//.test(line);
      return isLong ? [`${path}:${index + 1}: ${line.length} characters`] : [];
    });
  });
  t.strictSame(longLines, [], `${MAX_LINE} characters a line, ${MAX_TEXT_LINE} around a text`);
  const lineCounts = ALL.map(({ path, text }) => ({ path, count: text.split('\n').length - 1 }));
  const longFiles = lineCounts
    .filter(({ path, count }) => count > MAX_FILE_LINES && LONG_FILES[path] === undefined)
    .map(({ path, count }) => `${path}: ${count} lines`);
  t.strictSame(longFiles, [], `no file is longer than ${MAX_FILE_LINES} lines without a reason`);
  const stale = Object.keys(LONG_FILES).filter(
    (path) => !lineCounts.some((file) => file.path === path && file.count > MAX_FILE_LINES),
  );
  t.strictSame(stale, [], 'the list of long files has no entry too many');
});

void t.test('names say what a thing is', async (t) => {
  const vague = /^(?:.*[-.])?(?:utils?|helpers?|managers?|common|misc)(?:[-.].*)?$/i;
  const files = ALL.map(({ path }) => path).filter((path) =>
    path.split('/').some((part) => vague.test(part)),
  );
  t.strictSame(files, [], 'no file or folder is called utils, helpers, manager or common');
  const declared =
    /\b(?:function|class|const|let|interface|type)\s+\w*(?:Utils?|Helpers?|Manager|Common)\b/;
  t.strictSame(findings(ALL, codeOnly, declared), [], 'and nothing declared is');
  const wrongCase = ALL.map(({ path }) => path).filter(
    (path) => !/^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.test|\.d|\.base)?\.(?:ts|mjs)$/.test(basename(path)),
  );
  t.strictSame(wrongCase, [], 'files are named in kebab-case');
});

void t.test('nothing switches the compiler or a test off', async (t) => {
  t.strictSame(findings(ALL, codeOnly, /\benum\s+\w+\s*\{/), [], 'no enum');
  const anyType = /(?:[:<|&,(=]\s*|\bas\s+)any\b(?!\s*[:=(])/;
  t.strictSame(findings(ALL, codeOnly, anyType), [], 'no any');
  const directive = /@ts-(?:ignore|nocheck|expect-error)/;
  t.strictSame(findings(ALL, commentsOnly, directive), [], 'no comment that silences the compiler');
  const silenced = /biome-ignore(?![^:]*: \S+ \S)|(?:oxlint|eslint)-disable(?!.*-- \S+ \S)/;
  t.strictSame(findings(ALL, commentsOnly, silenced), [], 'linter directives give a reason');
  const skipped =
    /\b(?:t|test)\.(?:only|todo)\(|\b(?:only|todo)\s*:\s*true|\bskip\s*:\s*true|\b(?:t|test)\.skip\(\s*\)/;
  t.strictSame(
    findings(TESTS, withoutComments, skipped),
    [],
    'tests are skipped with a reason or not',
  );
  const leftOver = /\b(?:TODO|FIXME|XXX|HACK)\b/;
  t.strictSame(findings(ALL, commentsOnly, leftOver), [], 'no work is left over in comments');
});

void t.test('each file begins by saying what it is', async (t) => {
  const silent = ALL.filter(({ path, text }) => {
    // Above the imports, or on the one thing that the file declares.
    const start = text
      .replace(/^#![^\n]*\n/, '')
      .replace(/^(?:import\s[^;]*;\s*)+/, '')
      .trimStart();
    return !start.startsWith('//') && !start.startsWith('/*') && basename(path) !== 'index.ts';
  });
  t.strictSame(
    silent.map(({ path }) => path),
    [],
    'a comment comes first',
  );
});

void t.test('folders import what the table allows, and through the front door', async (t) => {
  const breaches: string[] = [];
  for (const { path, text } of [...SOURCES, ...filesBelow('bin', ['.ts'])]) {
    const folder = folderOf(path);
    const rule = IMPORT_TABLE[folder];
    if (!rule) {
      // Only the files right under src/ belong to no folder.
      if (path.split('/').length > 2)
        breaches.push(`${path}: folder ${folder} is not in the table`);
      continue;
    }
    for (const { specifier, isTypeOnly } of importsOf(text)) {
      const breach = (why: string): number => breaches.push(`${path}: ${specifier} ${why}`);
      if (specifier.startsWith('.')) {
        const target = normalize(join(dirname(path), specifier));
        const other = folderOf(target);
        if (other === folder) continue;
        if (!rule.folders.includes(other)) breach(`is not for ${folder}`);
        else if (target !== `src/${other}/index.ts`) breach('goes past the index');
      } else if (specifier.startsWith('node:')) {
        if (!rule.usesNode) breach(`is not for ${folder}, which is pure`);
      } else if (!rule.packages.includes(specifier)) breach(`is not for ${folder}`);
      else if (rule.typesOnly?.includes(specifier) && !isTypeOnly) breach('must be import type');
    }
  }
  t.strictSame(breaches, [], 'every import is in the table');
  const stars = findings(SOURCES, withoutComments, /^\s*export\s*\*/);
  t.strictSame(stars, [], 'no index exports everything');
});

interface TsConfig {
  readonly compilerOptions?: { readonly paths?: Readonly<Record<string, readonly string[]>> };
  readonly references?: readonly { readonly path: string }[];
}

function readTsConfig(path: string): TsConfig {
  return JSON.parse(readFileSync(join(ROOT, path), 'utf8'));
}

void t.test('the tsconfig of each folder enforces the table', async (t) => {
  const base = readTsConfig('src/tsconfig.base.json').compilerOptions?.paths ?? {};
  for (const [folder, rule] of Object.entries(IMPORT_TABLE)) {
    const home = folder === 'bin' ? 'bin' : `src/${folder}`;
    const config = readTsConfig(`${home}/tsconfig.json`);
    const forbidden = Object.keys(config.compilerOptions?.paths ?? base);
    const expected = GUARDED_PACKAGES.filter((name) => !rule.packages.includes(name));
    t.strictSame(
      [...forbidden].sort(),
      [...expected].sort(),
      `${folder}: packages it may not import`,
    );
    const references = (config.references ?? []).map(({ path }) => basename(path));
    const folders = references.filter((name) => !PACKAGE_FOLDERS.includes(name));
    t.strictSame(folders.sort(), [...rule.folders].sort(), `${folder}: folders it may import`);
  }
  const listed = readTsConfig('tsconfig.json').references?.map(({ path }) => normalize(path)) ?? [];
  for (const folder of Object.keys(IMPORT_TABLE)) {
    const home = folder === 'bin' ? 'bin' : `src/${folder}`;
    t.ok(listed.includes(home), `tsc -b builds ${home}`);
  }
});

/** Compiles a folder in a copy of its own. Resolves with what the compiler said. */
function compile(copy: string, folder: string): Promise<{ isClean: boolean; output: string }> {
  // The native compiler itself: its launcher is a Node program, and the test runner loads hooks
  // into every Node program that a test starts, which the launcher does not bear.
  const platform = `typescript-${process.platform}-${process.arch}`;
  const tsc = join(ROOT, 'node_modules/@typescript', platform, 'lib/tsc');
  return new Promise((resolve) => {
    execFile(tsc, ['-b', join(copy, 'src', folder)], (error, stdout, stderr) => {
      resolve({ isClean: error === null, output: stdout + stderr });
    });
  });
}

void t.test('a forbidden import does not compile', async (t) => {
  const copy = mkdtempSync(join(tmpdir(), 'xenblk-house-'));
  t.teardown(() => rmSync(copy, { recursive: true, force: true }));
  mkdirSync(join(copy, 'src'));
  for (const name of ['tsconfig.base.json', 'forbidden.d.ts', 'blkif', 'host']) {
    cpSync(join(ROOT, 'src', name), join(copy, 'src', name), { recursive: true });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  writeFileSync(join(copy, 'package.json'), '{ "type": "module" }');
  const control = await compile(copy, 'blkif');
  t.ok(control.isClean, `the folder as it is compiles: ${control.output}`);

  const attempts: readonly (readonly [what: string, code: string, error: RegExp])[] = [
    [
      'a package that others may use',
      "import koffi from 'koffi'; koffi.load('');",
      /TS1192|TS2305|TS2613/,
    ],
    [
      'a package by name',
      "import { XenStoreClient } from 'xenstore-client'; new XenStoreClient();",
      /TS2305/,
    ],
    [
      'a folder that is no reference',
      "import { HostError } from '../host/index.ts'; throw new HostError('FAILED', '');",
      /TS6307|TS6059/,
    ],
    [
      'a module of Node in a pure folder',
      "import { readFileSync } from 'node:fs'; readFileSync('');",
      /TS2307|TS2591|TS2580/,
    ],
  ];
  for (const [what, code, error] of attempts) {
    const path = join(copy, 'src/blkif/forbidden-import.ts');
    writeFileSync(path, `${code}\n`);
    const result = await compile(copy, 'blkif');
    rmSync(path);
    t.notOk(result.isClean, `${what} is refused`);
    t.match(result.output, error, `${what}: and for that reason`);
  }
});

void t.test('everything that a folder offers is documented', async (t) => {
  const entries = Object.keys(IMPORT_TABLE)
    .filter((folder) => folder !== 'bin')
    .flatMap((folder) => {
      if (!PACKAGE_FOLDERS.includes(folder)) return [`src/${folder}/index.ts`];
      // A package offers what its exports map names.
      return ['index', 'wire', 'protocol']
        .map((name) => `src/${folder}/src/${name}.ts`)
        .filter((path) => existsSync(join(ROOT, path)));
    });
  const bare = entries.flatMap((entry) =>
    exportedNames(entry)
      .filter((exported) => !exported.isDocumented)
      .map(({ name, path }) => `${entry}: ${name} (declared in ${path})`),
  );
  t.strictSame(bare, [], 'each exported name has a doc comment');
});

void t.test('every member of what the library offers is documented', async (t) => {
  const files = ['block-device', 'block-error', 'options'].map((name) => `src/block/${name}.ts`);
  const bare = SOURCES.filter(({ path }) => files.includes(path)).flatMap(({ path, text }) => {
    // Members stand two spaces in; what they are made of further in, or behind a bar.
    const members = [...text.matchAll(/^ {2}(?:readonly )?(\w+)\??[:(].*$/gm)];
    return members
      .filter(({ index }) => !text.slice(0, index).endsWith('*/\n'))
      .map(([, name]) => `${path}: ${name}`);
  });
  // The messages of a log go by their names.
  const named = bare.filter((line) => !/: (?:debug|info|warn)$/.test(line));
  t.strictSame(named, [], 'each has a doc comment');
});

void t.test('the scanner that these rules rest on', async (t) => {
  const text = [
    "const a = 'any'; // enum X {",
    'const b = `TODO $' + '{c /* any */ + `$' + '{d}`} enum`;',
    'const e = /[/\'"`]/.test(f) ? 1 / 2 : g / h; /* FIXME */',
  ].join('\n');
  t.equal(codeOnly(text).length, text.length, 'nothing moves');
  t.notMatch(codeOnly(text), /any|enum|TODO|FIXME/, 'strings and comments are blanked');
  t.match(codeOnly(text), /const b = .*c .*\+ .*d.*;/, 'what a template computes is code');
  t.match(codeOnly(text), /1 \/ 2 : g \/ h;/, 'division is no regular expression');
  t.match(commentsOnly(text), /enum X \{[\s\S]*FIXME/, 'comments are found');
  t.strictSame(
    importsOf(
      "import { type A, b } from './x.ts';\nimport type { C } from 'y';\n" +
        "export {\n  type D,\n} from '../z/index.ts';\n// import q from 'q';\nimport 'side';\n",
    ),
    [
      { specifier: './x.ts', isTypeOnly: false },
      { specifier: 'y', isTypeOnly: true },
      { specifier: '../z/index.ts', isTypeOnly: true },
      { specifier: 'side', isTypeOnly: false },
    ],
    'imports are found, and what is a type alone',
  );
});
