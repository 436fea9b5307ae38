/** The known word that a mistyped one was probably meant to be: one that it begins or is a part of, or that two slips of the finger explain. */
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

/** How many letters have to be put in, left out or replaced to make one word of the other. */
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
