import { assert, assertEquals } from "@std/assert";
import { type Place, placeOf, Queue } from "../pool/queue.ts";
import { seeded } from "./helpers.ts";

/** Takes everything out. */
function drain<T>(queue: Queue<T>): T[] {
  const values: T[] = [];
  while (queue.size > 0) values.push(queue.shift()!);
  return values;
}

Deno.test("Queue.shift() serves in the order of arrival", () => {
  const queue = new Queue<string>();
  assertEquals([queue.size, queue.first, queue.shift()], [0, undefined, undefined]);
  for (const value of ["a", "b", "c"]) queue.push(value);
  assertEquals([queue.size, queue.first], [3, "a"]);
  assertEquals(queue.shift(), "a");
  assertEquals([queue.size, queue.first], [2, "b"]);
  queue.push("d");
  assertEquals(drain(queue), ["b", "c", "d"]);
  assertEquals([queue.size, queue.first, queue.shift()], [0, undefined, undefined]);
});

Deno.test("Queue.push() works on a queue that was empty before", () => {
  const queue = new Queue<number>();
  for (let round = 0; round < 3; round++) {
    queue.push(round);
    assertEquals(queue.shift(), round);
    assertEquals(queue.shift(), undefined);
  }
});

Deno.test("Queue.push() takes undefined as any other value", () => {
  const queue = new Queue<undefined>();
  queue.push(undefined);
  queue.push(undefined);
  assertEquals(queue.size, 2);
  assertEquals(queue.clear(), [undefined, undefined]);
  assertEquals(queue.size, 0);
});

Deno.test("Queue.joinFront() joins in front of everybody", () => {
  const queue = new Queue<string>();
  queue.joinFront(placeOf("c"));
  queue.push("d");
  queue.joinFront(placeOf("b"));
  queue.joinFront(placeOf("a"));
  assertEquals([queue.size, queue.first], [4, "a"]);
  assertEquals(drain(queue), ["a", "b", "c", "d"]);
});

Deno.test("Queue.remove() leaves from the front, the middle and the end", () => {
  for (const leaving of [0, 1, 2, 3, 4]) {
    const queue = new Queue<number>();
    const places = [0, 1, 2, 3, 4].map((i) => queue.push(i));
    assert(queue.remove(places[leaving]!));
    assertEquals(queue.size, 4);
    assertEquals(drain(queue), [0, 1, 2, 3, 4].filter((i) => i !== leaving));
  }
});

Deno.test("Queue.remove() can empty the queue", () => {
  const queue = new Queue<number>();
  const place = queue.push(1);
  assert(queue.remove(place));
  assertEquals([queue.size, queue.first, queue.shift()], [0, undefined, undefined]);
  queue.push(2);
  assertEquals(drain(queue), [2]);
});

Deno.test("Queue.remove() of a place that was left before is false and changes nothing", () => {
  const queue = new Queue<string>();
  const [a, b, c] = ["a", "b", "c"].map((value) => queue.push(value)) as [Place<string>, Place<string>, Place<string>];
  assertEquals([queue.remove(b), queue.remove(b)], [true, false]);
  assertEquals(queue.size, 2);
  assertEquals(queue.shift(), "a");
  assertEquals(queue.remove(a), false, "it was served");
  assertEquals(queue.clear(), ["c"]);
  assertEquals(queue.remove(c), false, "it was cleared out");
  assertEquals(queue.size, 0);
});

Deno.test("Queue.clear() returns what was in it, in order", () => {
  const queue = new Queue<number>();
  assertEquals(queue.clear(), []);
  for (let i = 0; i < 5; i++) queue.push(i);
  assertEquals(queue.clear(), [0, 1, 2, 3, 4]);
  assertEquals([queue.size, queue.first], [0, undefined]);
  queue.push(5);
  assertEquals(queue.clear(), [5]);
});

Deno.test("Queue does what an array does in 20,000 random steps", () => {
  const random = seeded(1);
  const queue = new Queue<number>();
  const model: { value: number; place: Place<number> }[] = [];
  const left: Place<number>[] = [];
  for (let step = 0; step < 20_000; step++) {
    const dice = random();
    if (dice < 0.4) model.push({ value: step, place: queue.push(step) });
    else if (dice < 0.5) model.unshift({ value: step, place: queue.joinFront(placeOf(step)) });
    else if (dice < 0.7) {
      const served = model.shift();
      assertEquals(queue.shift(), served?.value);
      if (served !== undefined) left.push(served.place);
    } else if (dice < 0.9 && model.length > 0) {
      const [leaver] = model.splice(Math.floor(random() * model.length), 1);
      assert(queue.remove(leaver!.place));
      left.push(leaver!.place);
    } else if (dice < 0.999 && left.length > 0) {
      assertEquals(queue.remove(left[Math.floor(random() * left.length)]!), false);
    } else if (dice >= 0.999) {
      left.push(...model.map(({ place }) => place));
      assertEquals(queue.clear(), model.splice(0).map(({ value }) => value));
    }
    assertEquals([queue.size, queue.first], [model.length, model[0]?.value]);
  }
  assertEquals(drain(queue), model.map(({ value }) => value));
});

Deno.test("Queue serves and is left in a few steps, however long it is", () => {
  const queue = new Queue<number>();
  const places = Array.from({ length: 300_000 }, (_, i) => queue.push(i));
  for (let i = 1; i < places.length; i += 2) queue.remove(places[i]!);
  assertEquals(queue.size, 150_000);
  assert(drain(queue).every((value, i) => value === 2 * i));
});
