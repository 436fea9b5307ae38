/**
 * Where rows of CSV end. The calling thread, which hands out whole rows, and the workers must see the same rows.
 *
 * @module
 */

/** The state of a scan within a row. */
export interface RowScan {
  /** Whether a quoted field is open. */
  open: boolean;
  /** The byte before; -1 for a quote that has closed a field. */
  before: number;
}

/** The state at the beginning of a row. */
export function rowBegin(): RowScan {
  return { open: false, before: 10 };
}

/**
 * Where the row ends, as the index after its newline; -1 if it goes on after these bytes. A quote opens a field only at the field's
 * beginning, so a quote elsewhere costs no more than its row.
 *
 * This function is also sent to workers as its text: it refers to nothing outside itself.
 *
 * @param scan The state at the first byte; it is updated.
 */
export function rowEnd(bytes: Uint8Array, from: number, delimiter: number, scan: RowScan): number {
  const QUOTE = 34, NEWLINE = 10;
  let { open, before } = scan;
  for (let i = from; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (byte === QUOTE) {
      // Two quotes within a field stand for one: the second opens again what the first has closed.
      if (!open) open = before === -1 || before === delimiter || before === NEWLINE;
      else {
        open = false;
        before = -1;
        continue;
      }
    } else if (byte === NEWLINE && !open) {
      scan.open = false;
      scan.before = byte;
      return i + 1;
    }
    before = byte;
  }
  scan.open = open;
  scan.before = before;
  return -1;
}

/** A byte order mark in UTF-8. */
export const MARK = [0xef, 0xbb, 0xbf];

/** The position of the first byte from `from` on that makes a line a row: a delimiter, or anything but white space; -1 if none does. */
export function findText(bytes: Uint8Array, from: number, delimiter: number): number {
  for (let at = from; at < bytes.length; at++) if (bytes[at]! > 32 || bytes[at] === delimiter) return at;
  return -1;
}

/** Where the first row begins, after a mark and blank lines, and the position after its end. */
export function firstRow(bytes: Uint8Array, delimiter: string): { begin: number; end: number } {
  const code = delimiter.charCodeAt(0);
  let begin = MARK.every((byte, at) => bytes[at] === byte) ? MARK.length : 0;
  while (begin < bytes.length) {
    const found = rowEnd(bytes, begin, code, rowBegin());
    const end = found < 0 ? bytes.length : found;
    if (findText(bytes.subarray(begin, end), 0, code) >= 0) return { begin, end };
    begin = end;
  }
  return { begin, end: begin };
}
