import { assert, assertEquals } from "@std/assert";
import { Callbacks } from "../pool/callbacks.ts";
import { realClock } from "../pool/clock.ts";
import { JobTicket, type Ticket, type TicketOwner } from "../pool/ticket.ts";
import type { LeftBehind } from "../worker/left_behind.ts";
import { CLAIM_WORDS, STARTED, type StartThread, type TaskMessage, type ThreadEvents, type ToRuntime } from "../worker/protocol.ts";
import { Slot } from "../worker/slot.ts";

const owner: TicketOwner = {
  jobTimeout: Infinity,
  retries: 0,
  callbacks: new Callbacks(realClock, console.error),
  admit() {},
  refused() {},
  cancel: () => false,
};

const TASK: TaskMessage = { key: 0, name: "task", text: "() => {}" };

/** A slot whose thread only notes what it is sent. */
function open({ maxJobs = Infinity, drain = () => {} }: { maxJobs?: number; drain?: () => void } = {}) {
  const posted: ToRuntime[] = [];
  const answered: Ticket[] = [];
  let left: LeftBehind | undefined;
  let thread: ThreadEvents;
  const start: StartThread = (events) => {
    thread = events;
    return { pace: Infinity, post: (message) => void posted.push(message), drain, stop() {} };
  };
  const slot = new Slot(start, {
    id: 1,
    events: {
      loaded() {},
      initialized() {},
      failedToStart() {},
      returned: (tickets) => void answered.push(...tickets),
      answered() {},
      progressed() {},
      changed() {},
      closed() {},
      died: (_slot, _death, behind) => left = behind,
      stuck() {},
      gone() {},
    },
    capacity: 1,
    maxJobs,
    now: () => 0,
    observation: undefined,
  });
  thread!.alive();
  slot.makeReady();
  const [load] = posted.splice(0);
  return {
    slot,
    posted,
    answered,
    claims: load?.type === "load" ? load.claims : new Int32Array(),
    places: load?.type === "load" ? load.claims.length / CLAIM_WORDS : 0,
    send(count: number, task = TASK): Ticket[] {
      return Array.from({ length: count }, () => {
        const ticket = new JobTicket(owner, undefined, () => {}, []);
        slot.send(ticket, task);
        return ticket;
      });
    },
    finish(tickets: Ticket[]): void {
      thread.returned(tickets.map(({ run }) => run), tickets.map(() => undefined));
    },
    die(): LeftBehind {
      thread.died({ reason: "died" });
      return left!;
    },
  };
}

Deno.test("A slot gives back what it holds in the order in which it was sent, also when its places are used again from the first", () => {
  const { places, send, finish, slot, answered } = open();
  const first = send(places - 5);
  finish(first);
  assertEquals(answered, first);
  const sent = send(10);
  assert(sent[0]!.run % places > sent[9]!.run % places);
  assertEquals(slot.withdrawAll(3), sent.slice(3));
  assertEquals([...slot.tickets()].length, 3);
});

Deno.test("A slot that has died leaves what it held in the order in which it was sent, also when its places are used again from the first", () => {
  const { places, claims, send, finish, die } = open();
  finish(send(places - 5));
  const sent = send(10);
  const [started, others] = [sent.filter((_, i) => i % 2 === 0), sent.filter((_, i) => i % 2 === 1)];
  for (const { run } of started) claims[run % places * CLAIM_WORDS] = STARTED;
  const left = die();
  assertEquals(left.started.map(({ ticket }) => ticket), started);
  assertEquals(left.unstarted, others);
});

Deno.test("A slot is worn by the jobs that its worker has run, not by those that were taken back", () => {
  const { slot, send } = open({ maxJobs: 2 });
  const [first] = send(2);
  assertEquals([slot.isWorn, slot.withdraw(first!), slot.isWorn, slot.hasRoom], [true, true, false, false]);
  send(1);
  assertEquals(slot.isWorn, true);
});

Deno.test("A slot does not take its worker for one that is kept busy while an answer of that was not taken", () => {
  let arrived: Ticket | undefined;
  const { slot, send, finish } = open({ drain: () => void (arrived && finish([arrived])) });
  const looks = (): boolean[] => Array.from({ length: 3 }, () => slot.isKeptBusy());
  // Of a job that was taken back the worker says so.
  const [first, second] = send(2);
  assert(slot.withdraw(first!) && slot.withdraw(second!));
  assertEquals(looks(), [false, false, true]);
  arrived = first;
  assertEquals([slot.isKeptBusy(), slot.load], [false, 1]);
  arrived = undefined;
  assertEquals(looks(), [false, false, true]);
});

Deno.test("A slot sends a task once, and again when it has sent as many others as its worker remembers", () => {
  const { places, posted, send, finish } = open();
  /** Whether the message of the latest job has the task itself. */
  function isWhole(key: number): boolean {
    finish(send(1, { ...TASK, key }));
    const message = posted.pop();
    return message?.type === "run" && message.task.text !== undefined;
  }
  assertEquals([isWhole(0), isWhole(0)], [true, false]);
  for (let key = 1; key < places; key++) assertEquals(isWhole(key), true);
  assertEquals([isWhole(0), isWhole(places), isWhole(0), isWhole(0)], [false, true, true, false]);
});
