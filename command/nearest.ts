/**
 * The known word that a mistyped one was probably meant to be: one that begins with or contains it, or differs by at most two typing
 * errors.
 */
export function nearest(word: string, known: readonly string[]): string | undefined {
  if (word === "") return undefined;
  const begun = known.filter((each) => each.startsWith(word)).sort((a, b) => a.length - b.length);
  if (begun.length > 0) return begun[0];
  if (word.length < 3) return undefined;
  const partOf = known.find((each) => each.includes(word));
  if (partOf !== undefined) return partOf;
  const slips = known.map((each) => ({ each, distance: distance(word, each) })).sort((a, b) => a.distance - b.distance);
  return slips.find((slip) => slip.distance <= Math.min(2, word.length / 2))?.each;
}

/** The edit distance: how many letters must be inserted, deleted or replaced to turn one word into the other. */
function distance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 0; i < a.length; i++) {
    const row = [i + 1];
    for (let j = 0; j < b.length; j++) {
      row.push(Math.min(above[j + 1]! + 1, row[j]! + 1, above[j]! + (a[i] === b[j] ? 0 : 1)));
    }
    above = row;
  }
  return above[b.length]!;
}
