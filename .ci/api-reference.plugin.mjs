// What the reference says otherwise than typedoc-plugin-markdown would: each thing once, in few
// lines, readable where no search and no sidebar is.

const NOTE =
  '<!-- Made by `npm run docs` of the doc comments in the source: change those, not this file. -->';

/** `| 'A' | 'B'` with a comment on each: the theme does not show those, so a list of them does. */
function listMembers(alias) {
  const { type, comment } = alias;
  if (type?.type !== 'union' || type.elementSummaries === undefined || !comment) return;
  if (!type.types.every((member) => member.type === 'literal')) return;
  comment.summary.push({ kind: 'text', text: '\n' });
  for (const [index, member] of type.types.entries()) {
    comment.summary.push({ kind: 'text', text: `\n- \`'${member.value}'\`: ` });
    comment.summary.push(...type.elementSummaries[index]);
  }
}

/** Where a member comes from says nothing about how to use it; the class says what it implements. */
function forgetOrigins(reflection) {
  delete reflection.implementationOf;
  delete reflection.inheritedFrom;
  delete reflection.overwrites;
}

/** The names of a page, as links to their headings. */
function contentsOf(text) {
  const timesOfSlug = new Map();
  const links = [];
  for (const [, level, title] of text.matchAll(/^(#+) (.+)$/gm)) {
    const slug = title
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-');
    const times = timesOfSlug.get(slug) ?? 0;
    timesOfSlug.set(slug, times + 1);
    if (level === '##') links.push(`[${title}](#${slug}${times === 0 ? '' : `-${times}`})`);
  }
  return links.join(' · ');
}

/** Pages are named after modules: `index` is in API.md, `wire` in API-wire.md. */
function pageNameOf(moduleName) {
  return moduleName === 'index' ? 'API' : `API-${moduleName}`;
}

export function load(app) {
  app.converter.on(
    'resolveEnd',
    ({ project }) => {
      for (const reflection of Object.values(project.reflections)) {
        forgetOrigins(reflection);
        listMembers(reflection);
      }
      for (const module of project.children) module.name = pageNameOf(module.name);
    },
    -1000, // after whoever finds out where members come from
  );
  app.renderer.on('endPage', (page) => {
    if (page.model === page.project) return;
    const text = page.contents
      // The signature above says it already.
      .replace(/^#+ Returns\n\n.+\n+/gm, '')
      .replace(/^#+ Throws\n\n/gm, '**Throws** ')
      .replace(/^(#+ .+\n\n)#+ Get Signature\n\n/gm, '$1')
      .replace(/^# API(?:-(.+))?\n/, (_, entry) => {
        const name = `${page.project.name}${entry === undefined ? '' : `/${entry}`}`;
        return `# ${name}\n`;
      });
    const [title, ...rest] = text.split('\n');
    page.contents = [NOTE, '', title, '', contentsOf(text), ...rest].join('\n');
  });
}
