// Separates what the compiler reads from what people read: the same text with comments or strings
// blanked out, every character and line staying where it was.

type Kind = 'code' | 'comment' | 'string';

/** A slash after one of these begins a regular expression; after anything else it divides. */
const BEFORE_REGEXP = /(?:^|[(,=:[!&|?{};+\-*%~^<>]|\breturn|\btypeof|\bcase)\s*$/;

function endOfQuoted(text: string, start: number, quote: string): number {
  let at = start + 1;
  while (at < text.length && text[at] !== quote && text[at] !== '\n') {
    at += text[at] === '\\' ? 2 : 1;
  }
  return at + 1;
}

function endOfRegExp(text: string, start: number): number {
  let isInClass = false;
  let at = start + 1;
  for (; at < text.length && text[at] !== '\n'; at++) {
    const character = text[at];
    if (character === '\\') at++;
    else if (character === '[') isInClass = true;
    else if (character === ']') isInClass = false;
    else if (character === '/' && !isInClass) break;
  }
  return at + 1;
}

/** Marks each character. Templates are strings but for what stands in their `${}`. */
function classify(text: string): Kind[] {
  const kinds: Kind[] = Array.from({ length: text.length }, () => 'code');
  const mark = (from: number, to: number, kind: Kind): void => {
    kinds.fill(kind, from, Math.min(to, text.length));
  };
  /** For each template we are in: how many braces are open in its current `${}`. */
  const braces: number[] = [];
  let at = 0;
  const template = (): void => {
    const start = at;
    while (at < text.length && text[at] !== '`') {
      if (text[at] === '$' && text[at + 1] === '{') {
        mark(start, at, 'string');
        braces.push(0);
        at += 2;
        return;
      }
      at += text[at] === '\\' ? 2 : 1;
    }
    at++;
    mark(start, at, 'string');
  };
  while (at < text.length) {
    const character = text[at] ?? '';
    const next = text[at + 1];
    let end = at + 1;
    if (character === '/' && next === '/') {
      end = text.indexOf('\n', at);
      if (end < 0) end = text.length;
      mark(at, end, 'comment');
    } else if (character === '/' && next === '*') {
      end = text.indexOf('*/', at + 2) + 2;
      mark(at, end, 'comment');
    } else if (character === "'" || character === '"') {
      end = endOfQuoted(text, at, character);
      mark(at, end, 'string');
    } else if (character === '/' && BEFORE_REGEXP.test(text.slice(Math.max(0, at - 40), at))) {
      end = endOfRegExp(text, at);
      mark(at, end, 'string');
    } else if (character === '`') {
      kinds[at] = 'string';
      at++;
      template();
      continue;
    } else if (character === '{' && braces.length > 0) {
      braces.push((braces.pop() ?? 0) + 1);
    } else if (character === '}' && braces.length > 0) {
      const open = braces.pop() ?? 0;
      if (open === 0) {
        at++;
        template();
        continue;
      }
      braces.push(open - 1);
    }
    at = end;
  }
  return kinds;
}

function keep(text: string, kept: readonly Kind[]): string {
  const kinds = classify(text);
  let result = '';
  for (let i = 0; i < text.length; i++) {
    const character = text[i] ?? '';
    const kind = kinds[i] ?? 'code';
    result += character === '\n' || kept.includes(kind) ? character : ' ';
  }
  return result;
}

/** Without comments, strings, templates and regular expressions. */
export function codeOnly(text: string): string {
  return keep(text, ['code']);
}

/** Without comments. */
export function withoutComments(text: string): string {
  return keep(text, ['code', 'string']);
}

/** Only the comments. */
export function commentsOnly(text: string): string {
  return keep(text, ['comment']);
}

/** Specifiers of everything that a file imports or re-exports, with whether types alone come. */
export function importsOf(text: string): { specifier: string; isTypeOnly: boolean }[] {
  const code = withoutComments(text);
  const imports: { specifier: string; isTypeOnly: boolean }[] = [];
  const statement = /^\s*(?:import|export)\b([^;'"()]*?)\bfrom\s*['"]([^'"]+)['"]/gm;
  for (const [, clause = '', specifier = ''] of code.matchAll(statement)) {
    const names = /\{([^}]*)\}/.exec(clause)?.[1] ?? '';
    const areAllTypes =
      names.trim() !== '' &&
      names.split(',').every((name) => name.trim() === '' || /^\s*type\s/.test(name)) &&
      /^\s*\{/.test(clause);
    imports.push({ specifier, isTypeOnly: /^\s*type\b/.test(clause) || areAllTypes });
  }
  for (const [, specifier = ''] of code.matchAll(/^\s*import\s*['"]([^'"]+)['"]/gm)) {
    imports.push({ specifier, isTypeOnly: false });
  }
  for (const [, specifier = ''] of code.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) {
    imports.push({ specifier, isTypeOnly: false });
  }
  return imports;
}
