/** What a record of examples/generate_records.ts holds. */
export interface Measurement {
  id: number;
  x: number;
  y: number;
  unit: string;
}

/** The task of the comparison: it computes a little, and returns a small object. */
export function area({ id, x, y }: Measurement): { id: number; area: number } {
  return { id, area: (x * y) % 9973 };
}
