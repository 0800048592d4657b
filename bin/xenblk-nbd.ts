#!/usr/bin/env node
// The command: hands the arguments over and reports the exit code.
import { main } from '../src/cli/index.ts';

process.exitCode = await main(process.argv.slice(2));
