// Packages that a folder may not import resolve to this empty module (see "paths" in its
// tsconfig.json), so that importing any name from one of them does not compile.
// Who may import whom is the table in CONTRIBUTING.md.
export {};
