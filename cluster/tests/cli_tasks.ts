export function add(a: number, b: number): number {
  return a + b;
}

export function greet(name: string): string {
  return `Hello, ${name}!`;
}

export function bytes(): Uint8Array {
  return new Uint8Array([1, 2, 255]);
}

export function fail(): never {
  throw new Error("no luck");
}
