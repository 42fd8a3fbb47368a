/** Words that somebody may have meant. */

/** The word of `known` nearest to `word`, where a slip of the fingers could have made one of the other; else null. */
export function nearestWord(word: string, known: readonly string[]): string | null {
  const plain = (text: string): string => text.toLowerCase().replaceAll("-", "_");
  let nearest: string | null = null;
  let least = Infinity;
  for (const candidate of known) {
    const [a, b] = [plain(word), plain(candidate)];
    const distance = isPartOf(a, b) ? 1 : editDistance(a, b);
    if (distance < least && distance <= Math.max(1, Math.floor(Math.max(a.length, b.length) * 0.4))) {
      nearest = candidate;
      least = distance;
    }
  }
  return nearest;
}

/** True for one of them being the other without its end, such as `min_checkpoint_page` or `sync_interval`. */
function isPartOf(a: string, b: string): boolean {
  const [short, long] = a.length < b.length ? [a, b] : [b, a];
  return short.length >= 4 && (long.startsWith(short) || long.endsWith(short));
}

/** Letters to insert, remove, replace, or to exchange with their neighbour. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      let cost = Math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2] + 1);
      current.push(cost);
    }
    [before, previous] = [previous, current];
  }
  return previous[b.length];
}
