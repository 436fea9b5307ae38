/** Tells on the standard error how far it is: in one line that is written over in a terminal, and in a line for each workload elsewhere. */
export class Progress implements Disposable {
  #total: number;
  #done = 0;
  #begin = performance.now();
  #heading = "";
  #terminal: boolean = Deno.stderr.isTerminal();

  constructor(total: number) {
    this.#total = total;
  }

  /** Something is being measured: the heading is the round and the workload. */
  begins(heading: string, contender: string): void {
    if (this.#terminal) {
      const left = this.#done === 0
        ? ""
        : `, about ${duration((performance.now() - this.#begin) / this.#done * (this.#total - this.#done))} left`;
      this.#write(`\r\x1b[K[${this.#done + 1}/${this.#total}] ${heading}: ${contender}${left}`);
    } else if (heading !== this.#heading) {
      this.#write(`[${this.#done + 1}/${this.#total}] ${heading}\n`);
    }
    this.#heading = heading;
  }

  ended(): void {
    this.#done++;
  }

  /** A line that stays. */
  tell(line: string): void {
    this.#write(`${this.#terminal ? "\r\x1b[K" : ""}${line}\n`);
  }

  [Symbol.dispose](): void {
    if (this.#terminal) this.#write("\r\x1b[K");
  }

  #write(text: string): void {
    Deno.stderr.writeSync(new TextEncoder().encode(text));
  }
}

function duration(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
}
