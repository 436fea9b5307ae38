import type { SimulatedWorld } from "./simulated_world.ts";
import { check } from "./violation.ts";

/** A signal that jobs and maps share, and how many listen to it. */
export class Abort {
  readonly name: string;
  #world: SimulatedWorld;
  #controller = new AbortController();
  #reason = new Error("aborted");
  #listeners = 0;

  constructor(world: SimulatedWorld, index: number) {
    this.#world = world;
    this.name = `signal ${index}`;
    const { signal } = this;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: unknown[]) => {
      this.#listeners++;
      Reflect.apply(addEventListener, signal, args);
    };
    signal.removeEventListener = (...args: unknown[]) => {
      this.#listeners--;
      Reflect.apply(removeEventListener, signal, args);
    };
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get aborted(): boolean {
    return this.signal.aborted;
  }

  abort(): void {
    this.#world.note(() => `abort ${this.name}`);
    // The listener is called once and removed.
    this.#listeners = 0;
    let thrown: ErrorEvent | undefined;
    // What a listener throws is not thrown by `abort()`: it goes to the platform.
    const take = (event: ErrorEvent): void => {
      event.preventDefault();
      thrown ??= event;
    };
    addEventListener("error", take);
    this.#controller.abort(this.#reason);
    removeEventListener("error", take);
    if (thrown !== undefined) throw thrown.error;
  }

  wasReason(error: unknown): boolean {
    return this.aborted && error === this.#reason;
  }

  checkAtEnd(): void {
    check(this.#listeners === 0, "nobody listens to a signal in the end", () => this.name);
  }
}
