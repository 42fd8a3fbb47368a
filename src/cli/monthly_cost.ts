/** What a month of replication costs at most, by the list prices of S3 Standard. */
import { partSize } from "../storage/s3_multipart.ts";

/** USD, us-east-1. */
export const prices = { thousandPuts: 0.005, gigabyteMonth: 0.023 } as const;

const monthSeconds = 30 * 86_400;
/** PUTs of a snapshot beside its own: its bridge, and the pointer to it. */
const putsBeside = 2;
/** Requests that begin and complete an upload in parts. */
const putsOfParts = 2;

/** How a database is replicated. */
export interface Usage {
  /** Seconds. */
  readonly syncInterval: number;
  /** Seconds; 0: none by time. */
  readonly snapshotInterval: number;
  /** Most snapshots that retention keeps; `null`: nothing is ever removed. */
  readonly snapshotsMax: number | null;
  /** Bytes. */
  readonly databaseSize: number;
}

/** What it comes to in a month in which the database is written to all the time. */
export interface MonthlyCost {
  readonly puts: number;
  /** Snapshots in the bucket at the end of it, and their bytes. */
  readonly snapshots: number;
  readonly snapshotBytes: number;
  readonly requestsUsd: number;
  readonly storageUsd: number;
}

/** Reads, listings, deltas in the bucket and what leaves the cloud are not in it. */
export function monthlyCost({ syncInterval, snapshotInterval, snapshotsMax, databaseSize }: Usage): MonthlyCost {
  const taken = snapshotInterval === 0 ? 1 : Math.ceil(monthSeconds / snapshotInterval);
  const parts = Math.ceil(databaseSize / partSize);
  const puts = Math.ceil(monthSeconds / syncInterval) + taken * (putsBeside + (parts > 1 ? parts + putsOfParts : 1));
  const snapshots = Math.min(taken, snapshotsMax ?? Infinity);
  const snapshotBytes = snapshots * databaseSize;
  return {
    puts,
    snapshots,
    snapshotBytes,
    requestsUsd: puts / 1000 * prices.thousandPuts,
    storageUsd: snapshotBytes / 1e9 * prices.gigabyteMonth,
  };
}
