import { assertEquals } from "@std/assert";
import type { Ticket } from "../pool/ticket.ts";
import { Watchdog } from "../pool/watchdog.ts";
import { SimulatedClock } from "./simulation/simulated_clock.ts";

/** A clock whose time of day can be set. */
class SetClock extends SimulatedClock {
  /** How far the time of day is ahead. */
  ahead = 0;
  /** How fast it runs. */
  rate = 1;
  override timeOfDay = (): number => (this.now() * this.rate + this.ahead) | 0;
}

/** A watchdog, and what it watches over: tickets that begin something when they are told to. */
function watched() {
  const clock = new SetClock();
  const tickets: Ticket[] = [];
  const expired: string[] = [];
  const watchdog = new Watchdog(clock, {
    tickets: () => tickets,
    expire(ticket) {
      expired.push(`${ticket.id} at ${clock.now()}`);
      takes?.(ticket);
    },
  });
  let takes: ((ticket: Ticket) => void) | undefined;

  /** Has all other tickets lose their worker together with the first that expires. */
  function share(): void {
    takes = (ticket) => tickets.filter((each) => each !== ticket).forEach((each) => each.slot = undefined);
  }

  function watch(id: string, timeout: number): { begin(): void; end(): void; watchAgain(): void; forget(): void } {
    let began: number | undefined;
    const runningFor = (_: Ticket, timeOfDay: number) => began === undefined ? undefined : { time: (timeOfDay - began) | 0, item: 0 };
    const ticket = { id, timeout, watched: false, isAt: () => true, slot: { runningFor } } as unknown as Ticket;
    tickets.push(ticket);
    watchdog.watch(ticket);
    return {
      begin: () => began = clock.timeOfDay(),
      end: () => began = undefined,
      watchAgain: () => watchdog.watch(ticket),
      forget: () => watchdog.forget(ticket),
    };
  }

  /** Lets all timers run out that are due by then. */
  function fireUntil(time: number): void {
    while (clock.nextDue <= time) clock.fire();
    clock.creep(time - clock.now());
  }

  return { clock, expired, watch, share, fireUntil };
}

Deno.test("Watchdog reports what has run for too long since it began", () => {
  const { expired, watch, fireUntil } = watched();
  const first = watch("first", 1000);
  watch("second", 1000).begin();
  fireUntil(300);
  first.begin();
  fireUntil(1300);
  assertEquals(expired.filter((each) => !each.startsWith("second")), ["first at 1300"]);
  assertEquals(expired[0], "second at 1000");
});

Deno.test("Watchdog looks in time for the shorter limit of two, and at nothing that has lost its worker with another", () => {
  const { expired, watch, share, fireUntil } = watched();
  share();
  watch("short", 100).begin();
  watch("beside", 100).begin();
  watch("long", 800).begin();
  fireUntil(100);
  assertEquals(expired, ["short at 100"]);
});

for (const ahead of [3_600_000, -3_600_000, 2 ** 31]) {
  Deno.test(`Watchdog gives what runs its time anew, once, when the time of day is set by ${ahead} ms`, () => {
    const { clock, expired, watch, fireUntil } = watched();
    const job = watch("job", 1000);
    watch("other", 1000);
    fireUntil(900);
    job.begin();
    clock.ahead = ahead;
    fireUntil(1999);
    assertEquals(expired, []);
    // However often that happens.
    clock.ahead = 0;
    fireUntil(2000);
    assertEquals(expired, ["job at 2000"]);
  });
}

Deno.test("Watchdog goes by the new time of day if that was set before something began", () => {
  const { clock, expired, watch, fireUntil } = watched();
  const job = watch("job", 1000);
  clock.ahead = 3_600_000;
  fireUntil(1000);
  job.begin();
  fireUntil(2000);
  assertEquals(expired, ["job at 2000"]);
});

Deno.test("Watchdog tolerates clocks that run slightly differently", () => {
  const { clock, expired, watch, fireUntil } = watched();
  clock.rate = 0.992;
  watch("job", 99_200).begin();
  fireUntil(100_000);
  assertEquals(expired, ["job at 100000"]);
});

Deno.test("Watchdog gives what runs its time anew, once, when the program stood still", () => {
  const { clock, expired, watch, fireUntil } = watched();
  watch("job", 5000).begin();
  fireUntil(4000);
  clock.creep(3600_000);
  fireUntil(clock.now() + 3000);
  assertEquals(expired, []);
  clock.creep(3600_000);
  fireUntil(clock.now() + 10);
  assertEquals(expired, ["job at 7207001"]);
});

Deno.test("Watchdog sets no timer once nothing has a limit, though it was run again", () => {
  const { clock, watch } = watched();
  const [job, other] = [watch("job", 1000), watch("other", Infinity)];
  job.watchAgain();
  other.watchAgain();
  assertEquals(clock.timers, 1);
  job.forget();
  assertEquals(clock.timers, 0);
});

Deno.test("Watchdog gives nothing that began after the program stood still more time than its limit", () => {
  const { clock, expired, watch, fireUntil } = watched();
  const job = watch("job", 2000);
  clock.creep(3600_000);
  fireUntil(clock.now() + 10);
  const began = clock.now();
  job.begin();
  fireUntil(began + 2000);
  assertEquals(expired, [`job at ${began + 2000}`]);
});

Deno.test("Watchdog knows that the time of day starts anew after 2^32 ms", () => {
  const { clock, expired, watch, fireUntil } = watched();
  clock.ahead = 2 ** 31 - 500;
  watch("job", 2000).begin();
  fireUntil(2000);
  assertEquals(expired, ["job at 2000"]);
});

Deno.test("Watchdog that comes late first lets its caller hear of what has ended, and is not put off for ever", () => {
  const { clock, expired, watch } = watched();
  const ended = watch("ended", 1000);
  ended.begin();
  watch("endless", 1000).begin();
  clock.creep(2000);
  clock.fire();
  ended.end();
  clock.creep(100);
  clock.fire();
  assertEquals(expired, ["endless at 2100"]);
});
