// What a folder's index.ts offers, and whether each name is documented where it is declared.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { withoutComments } from './code-only.ts';
import { ROOT } from './source-files.ts';

const DECLARATION =
  'export\\s+(?:declare\\s+)?(?:abstract\\s+)?(?:async\\s+)?' +
  '(?:function\\*?|class|const|let|interface|type|namespace)\\s+';

export interface ExportedName {
  readonly name: string;
  /** Relative to the repository: the file that declares it. */
  readonly path: string;
  readonly isDocumented: boolean;
}

interface ReExport {
  readonly source: string;
  readonly original: string;
  readonly name: string;
}

function reExports(text: string): ReExport[] {
  const found: ReExport[] = [];
  const statement = /^export\s+(?:type\s+)?\{([^}]*)\}\s*from\s*'([^']+)'/gm;
  for (const [, names = '', source = ''] of withoutComments(text).matchAll(statement)) {
    for (const part of names.split(',')) {
      const words = part
        .trim()
        .replace(/^type\s+/, '')
        .split(/\s+as\s+/);
      const [original = ''] = words;
      if (original !== '') found.push({ source, original, name: words.at(-1) ?? original });
    }
  }
  return found;
}

/** One line that declares a constant: several in a row may share the comment of the first. */
const ONE_LINER = /^export const [^\n]*;\n$/;

/** Whether a doc comment ends right before `at`, or before the row of constants it ends. */
function isCommented(text: string, at: number): boolean {
  let before = text.slice(0, at);
  for (;;) {
    const lastLine = before.slice(before.lastIndexOf('\n', before.length - 2) + 1);
    if (!ONE_LINER.test(lastLine)) break;
    before = before.slice(0, before.length - lastLine.length);
  }
  if (!before.trimEnd().endsWith('*/')) return false;
  return before.startsWith('/**', before.lastIndexOf('/*'));
}

/** Undefined when the text does not declare the name. A twin (const and type) counts for both. */
function isDocumented(text: string, name: string): boolean | undefined {
  const declarations = [...text.matchAll(new RegExp(`^${DECLARATION}${name}\\b`, 'gm'))];
  if (declarations.length === 0) return undefined;
  return declarations.some(({ index }) => isCommented(text, index));
}

function resolve(path: string, name: string, depth: number): ExportedName {
  const text = readFileSync(path, 'utf8');
  const documented = isDocumented(text, name);
  const shown = relative(ROOT, path);
  if (documented !== undefined) return { name, path: shown, isDocumented: documented };
  const next = reExports(text).find((entry) => entry.name === name);
  if (!next?.source.startsWith('.') || depth > 5) {
    throw new Error(`${shown} does not declare ${name}`);
  }
  return resolve(join(dirname(path), next.source), next.original, depth + 1);
}

/** Every name that `indexPath` (relative to the repository) exports. */
export function exportedNames(indexPath: string): ExportedName[] {
  const path = join(ROOT, indexPath);
  if (!existsSync(path)) throw new Error(`${indexPath} does not exist`);
  const text = readFileSync(path, 'utf8');
  const names = reExports(text)
    .filter((entry) => entry.source.startsWith('.'))
    .map((entry) => entry.name);
  for (const [, name = ''] of text.matchAll(new RegExp(`^${DECLARATION}(\\w+)`, 'gm'))) {
    names.push(name);
  }
  return [...new Set(names)].map((name) => resolve(path, name, 0));
}
