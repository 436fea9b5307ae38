/**
 * Buffers that are given away: each row of the picture of the Mandelbrot set in the README is a job with a buffer in `transfer`, which the
 * program no longer has once the job is sent. Large buffers are moved; small ones such as these are copied through shared memory.
 *
 * ```sh
 * deno run --allow-write=docs/mandelbrot.png examples/mandelbrot.ts
 * ```
 *
 * @module
 */

import { Job, ProcessPool } from "@procpool/process-pool";
import { assert, assertEquals } from "@std/assert";
import { decode, encode } from "npm:fast-png@8.0.0";

const WIDTH = 600;
const HEIGHT = 400;

/** Fills a row of pixels, three bytes each. `y` is from -1 to 1. */
function mandelbrotRow(row: Uint8Array<ArrayBuffer>, y: number): Uint8Array<ArrayBuffer> {
  const most = 192;
  const width = row.length / 3;
  for (let column = 0; column < width; column++) {
    const x = -2.25 + 3 * (column + 0.5) / width;
    let re = 0, im = 0, steps = 0;
    while (re * re + im * im < 4 && steps < most) {
      [re, im] = [re * re - im * im + x, 2 * re * im + y];
      steps++;
    }
    // The set is black; around it, from night blue by way of red to white.
    const light = steps === most ? 0 : Math.min(1, steps / 48);
    row.set([255 * Math.min(1, light * 2), 255 * light, steps === most ? 0 : 64 + 191 * light ** 2], column * 3);
  }
  return row;
}

const pixels = new Uint8Array(WIDTH * HEIGHT * 3);
let moved = 0;
let drawn = 0;
{
  await using pool = new ProcessPool();
  for (let id = 0; id < HEIGHT; id++) {
    const row = new Uint8Array(WIDTH * 3);
    const job = new Job({
      id,
      func: mandelbrotRow,
      args: [row, (2 * id + 1) / HEIGHT - 1],
      transfer: [row.buffer],
      onDone: async (future) => {
        pixels.set(await future.result(), id * WIDTH * 3);
        drawn++;
      },
    });
    const future = await pool.submit(job);
    future.addDoneCallback(() => moved += Number(row.buffer.detached));
  }
}

// What a callback throws is only printed.
assertEquals(drawn, HEIGHT);
const png = encode({ width: WIDTH, height: HEIGHT, data: pixels, channels: 3, depth: 8 });
await Deno.writeFile("docs/mandelbrot.png", png);
console.log(`docs/mandelbrot.png: ${WIDTH} x ${HEIGHT} pixels`);

function same(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.prototype.every.call(a, (byte, i) => byte === b[i]);
}

function rowAt(id: number): Uint8Array {
  return pixels.subarray(id * WIDTH * 3, (id + 1) * WIDTH * 3);
}

assertEquals(moved, HEIGHT);
assert(same(decode(png).data, pixels), "The file does not hold the picture");
for (let id = 0; id < HEIGHT; id++) assert(same(rowAt(id), rowAt(HEIGHT - 1 - id)), `Row ${id} is not like its mirror image`);

// Output:
// docs/mandelbrot.png: 600 x 400 pixels
