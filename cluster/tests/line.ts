/**
 * A connection to a server on which answers can be held back.
 *
 * @module
 */

/** The commands of clients that wait for jobs or listen; scripts may contain the same words. */
const WAITS = /\*\d+\r\n\$\d+\r\n(subscribe|bzpopmin)\r\n/;

/** Forwards what clients and a server on the loopback interface send to each other. */
export class Line implements AsyncDisposable {
  /** What the server has sent to clients that wait or listen, once it is forwarded. */
  said = "";
  /** Whether a client is waiting for a job. */
  waited = false;
  /** How many of the next clients are turned away. */
  refuses = 0;
  /** How long each answer takes to clients that neither wait for jobs nor listen, in ms. */
  delay = 0;
  /** Where the next clients are led. */
  port: number;
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  #open = new Set<Deno.Conn>();
  #dead = new Set<Deno.Conn>();
  #silent: Deno.Conn[] = [];
  #ends: Promise<void>[] = [];
  #held: PromiseWithResolvers<void> | undefined;
  #most: number;

  /** @param most How many clients get answers; the others are accepted and hear nothing. */
  constructor(port: number, most = Infinity) {
    this.port = port;
    this.#most = most;
    this.#ends.push(this.#accept());
  }

  get url(): string {
    return `redis://127.0.0.1:${(this.#listener.addr as Deno.NetAddr).port}`;
  }

  /** Holds back the answers to clients that neither wait for jobs nor listen. */
  hold(): void {
    this.#held = Promise.withResolvers();
  }

  release(): void {
    this.#held?.resolve();
    this.#held = undefined;
  }

  /** Ends all connections, with everything that is held back on them. Later clients are accepted and hear nothing. */
  mute(): void {
    this.#most = 0;
    for (const conn of this.#open) conn.close();
    this.#open.clear();
    this.release();
  }

  /** Ends the connections of clients that hear nothing, and answers later ones. */
  unmute(): void {
    this.#most = Infinity;
    for (const conn of this.#silent.splice(0)) conn.close();
  }

  /** Forwards nothing more on the open connections, without ending them; later clients are answered. */
  cut(): void {
    for (const conn of this.#open) this.#dead.add(conn);
  }

  /** How many clients were accepted and hear nothing. */
  get unheard(): number {
    return this.#silent.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    this.#listener.close();
    for (const conn of [...this.#open, ...this.#silent]) conn.close();
    this.#open.clear();
    await Promise.all(this.#ends);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      if (this.refuses > 0) {
        this.refuses--;
        client.close();
        continue;
      }
      if (this.#open.size >= 2 * this.#most) {
        this.#silent.push(client);
        continue;
      }
      const server = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
      let waits = false;
      const decoder = new TextDecoder();
      const ask = this.#pass(client, server, (bytes) => {
        const text = decoder.decode(bytes);
        const [, command] = WAITS.exec(text) ?? [];
        waits ||= command !== undefined;
        this.waited ||= command === "bzpopmin";
      });
      const answer = this.#pass(server, client, async () => {
        if (waits) return;
        await this.#held?.promise;
        if (this.delay > 0) await new Promise((resolve) => setTimeout(resolve, this.delay));
      }, (bytes) => {
        if (waits) this.said += decoder.decode(bytes);
      });
      this.#ends.push(ask, answer);
    }
  }

  /** Forwards what comes in until either side ends. */
  async #pass(
    from: Deno.Conn,
    to: Deno.Conn,
    before: (bytes: Uint8Array) => void | Promise<void>,
    after: (bytes: Uint8Array) => void = () => {},
  ): Promise<void> {
    this.#open.add(from);
    const block = new Uint8Array(2 ** 16);
    try {
      for (let length = await from.read(block); length !== null; length = await from.read(block)) {
        const bytes = block.subarray(0, length);
        await before(bytes);
        if (this.#dead.has(from)) continue;
        for (let at = 0; at < length;) at += await to.write(bytes.subarray(at));
        after(bytes);
      }
    } catch {
      // One of the two was closed.
    } finally {
      for (const conn of [from, to]) if (this.#open.delete(conn)) conn.close();
    }
  }
}
