// dom0 alone, with nothing beside what is measured.
import type { Scenario } from '../scenario.ts';
import { benchmark } from '../scenarios/benchmark.ts';

export const scenarios: readonly Scenario[] = [benchmark];
