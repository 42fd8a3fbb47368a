/** `walrust list`: what lies in the bucket and which points can be restored. */
import { printable } from "../format/keys.ts";
import { layoutNames, listDatabases } from "../replication/inventory.ts";
import {
  findNearby,
  type HistorySummary,
  type LineageSummary,
  listHistory,
  type Nearby,
} from "../replication/listing.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { bucketOf, openDestination } from "./destination.ts";
import { count, formatBytes, formatTime, type Output, table } from "./output.ts";

/** Lists every database below the bucket's prefix. */
export async function run(context: CommandContext, _call: CommandCall): Promise<number> {
  const { output, signal } = context;
  const { store, prefix } = openDestination(context);
  const where = `${store.location}${prefix === "" ? "" : `/${prefix}`}`;
  const databases: HistorySummary[] = [];
  for (const entry of await listDatabases(store, prefix, { signal })) {
    // A directory where nothing is known lies beside the databases; it is no database.
    if (entry.layout !== null) databases.push(await listHistory(store, entry, { signal }));
  }
  const hint = databases.length > 0
    ? null
    : hintOf(bucketOf(context)!.value, await findNearby(store, prefix, { signal }));
  output.json({ location: store.location, prefix, databases, hint });
  if (databases.length === 0) {
    output.line(`nothing in ${where}`);
    if (hint !== null) output.line(`hint: ${hint}`);
  } else output.line(`${count(databases.length, "database")} in ${where}`);
  for (const database of databases) {
    printDatabase(output, database);
    for (const warning of database.warnings) output.warning(`${database.name}: ${warning}`);
  }
  return 0;
}

/** What to give instead of `-b url`, where databases are one level away. */
function hintOf(url: string, { itself, folders }: Nearby): string | null {
  const [, parent, name] = /^(.*[^/:])\/+([^/]+)\/*$/.exec(url) ?? [];
  if (itself !== null) {
    const above = parent === undefined ? "" : `: give -b ${parent}, its name is ${name}`;
    return printable(`this is itself the folder of a database, written by ${layoutNames[itself]}${above}`);
  }
  if (folders.length === 0) return null;
  const deeper = folders.map((folder) => `-b ${url.replace(/\/+$/, "")}/${folder}`);
  return printable(`databases lie one level deeper: give ${deeper.join(" or ")}`);
}

function printDatabase(output: Output, database: HistorySummary): void {
  output.line("");
  const [title] = table([[database.name]]);
  if (database.layout !== null && database.layout !== "walrust") {
    const writers = [database.layout, ...database.otherLayouts].map((layout) => layoutNames[layout]);
    output.line(`${title}: written by ${writers.join(" and ")}, which this version cannot restore`);
    return;
  }
  output.line(title);
  for (const layout of database.otherLayouts) {
    output.line(`  also written by ${layoutNames[layout]}, which this version cannot restore`);
  }
  for (const lineage of database.lineages) printLineage(output, lineage);
  if (database.otherLineages.length > 0) {
    output.line(`  ${count(database.otherLineages.length, "other lineage")}: ${database.otherLineages.join(", ")}`);
  }
}

function printLineage(output: Output, lineage: LineageSummary): void {
  const fork = lineage.parent === null ? "" : ` (continues ${lineage.parent} at seq ${lineage.parentSeq})`;
  output.line(`  lineage ${lineage.lineage ?? "none"}${lineage.active ? ", active" : ""}${fork}`);
  const rows: string[][] = [];
  const point = (label: string, value: { seq: bigint; createdMs: number | null } | null): void => {
    if (value !== null) {
      rows.push([label, `seq ${value.seq}`, value.createdMs === null ? "?" : formatTime(value.createdMs)]);
    }
  };
  point("first point", lineage.first);
  point("last point", lineage.last);
  const newest = lineage.snapshots.at(-1);
  point("snapshot", newest ?? null);
  if (newest !== undefined) {
    const checksum = lineage.checksum === null ? "" : `  checksum ${lineage.checksum}`;
    rows[rows.length - 1][2] += `  ${formatBytes(newest.size)}${checksum}`;
  }
  for (const row of table(rows)) output.line(`    ${row}`);
  const parts = [count(lineage.snapshotCount, "snapshot"), count(lineage.deltas, "delta")];
  if (lineage.levels > 0) parts.push(`${lineage.levels} merged`);
  if (lineage.ignoredKeys > 0) parts.push(`${count(lineage.ignoredKeys, "foreign key")} ignored`);
  output.line(`    ${parts.join(", ")}, ${formatBytes(lineage.bytes)}`);
  if (lineage.first === null) output.line("    nothing restorable yet: no complete snapshot");
}
