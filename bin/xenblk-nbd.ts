#!/usr/bin/env node
// The command: hands the arguments over and reports the exit code. What it needs of native code is
// loaded here, so that a broken installation ends in a sentence, and not in a stack trace.
try {
  const { main } = await import('../src/cli/index.ts');
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
  process.stderr.write(
    `xenblk-nbd: cannot start: ${reason}; Node 20.20 or newer and its packages are needed: ` +
      'run `npm ci` in its folder, or install it again\n',
  );
  process.exitCode = 1;
}
