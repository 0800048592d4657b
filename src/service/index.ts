/** What a machine needs to run this program as a service of systemd, and putting it in place. */

export {
  type InstallOptions,
  installUnits,
  type PlannedFile,
  planUnits,
  thisCommand,
} from './install-units.ts';
