/**
 * A headless Chromium, driven through its own protocol, for tests of pages.
 *
 * @module
 */

import { within } from "./fixtures.ts";

const { run, net, write } = Object.fromEntries(
  (["run", "net", "write"] as const).map((name) => [name, Deno.permissions.querySync({ name }).state === "granted"]),
);

/** Whether a browser may be started: that runs a program, with a temporary folder, and connects to it over loopback. */
export const browserAllowed: boolean = run! && write! &&
  (net! || Deno.permissions.querySync({ name: "net", host: "127.0.0.1" }).state === "granted");

/** What tests that need a browser say in their names. */
export const NEEDS_BROWSER = "(needs Chromium, --allow-run, --allow-write, --allow-env and --allow-net=127.0.0.1)";

type Message = {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
};

/** A page in a browser of its own. */
export class Browser implements AsyncDisposable {
  /** The errors that the page has logged or thrown. */
  readonly problems: string[] = [];
  /** The URLs that it has requested. */
  readonly requests: string[] = [];
  #process: Deno.ChildProcess;
  #folder: string;
  #socket: WebSocket;
  #nextId = 1;
  #calls = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  #events = new Map<string, () => void>();

  private constructor(process: Deno.ChildProcess, folder: string, socket: WebSocket) {
    this.#process = process;
    this.#folder = folder;
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
  }

  /** Starts a browser; an error says so if there is none. */
  static async start(): Promise<Browser> {
    const folder = await Deno.makeTempDir();
    const args = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", `--user-data-dir=${folder}`, "about:blank"];
    let process: Deno.ChildProcess;
    try {
      process = new Deno.Command("chromium", { args, stdin: "null", stdout: "null", stderr: "piped" }).spawn();
    } catch (cause) {
      await Deno.remove(folder, { recursive: true });
      throw new Error("Cannot start 'chromium': on Debian, 'apt-get install chromium' installs it", { cause });
    }
    const address = await within(readAddress(process.stderr));
    const { host } = new URL(address);
    const pages: { type: string; webSocketDebuggerUrl: string }[] = await (await fetch(`http://${host}/json/list`)).json();
    const socket = new WebSocket(pages.find(({ type }) => type === "page")!.webSocketDebuggerUrl);
    await within(new Promise((resolve) => socket.onopen = resolve));
    const browser = new Browser(process, folder, socket);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await browser.call(`${domain}.enable`);
    return browser;
  }

  /** Calls a method of the protocol. */
  call(method: string, params: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = this.#nextId++;
    const call = Promise.withResolvers<Record<string, unknown>>();
    this.#calls.set(id, call);
    this.#socket.send(JSON.stringify({ id, method, params }));
    return within(call.promise);
  }

  /** Opens a page, and waits until it has loaded. */
  async open(url: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => this.#events.set("Page.loadEventFired", resolve));
    await this.call("Page.navigate", { url });
    await within(loaded);
  }

  /** The value of an expression in the page. */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails !== undefined) throw new Error(`In the page: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: unknown }).value;
  }

  async press(key: string): Promise<void> {
    const windowsVirtualKeyCode = key === "Tab" ? 9 : 0;
    await this.call("Input.dispatchKeyEvent", { type: "keyDown", key, windowsVirtualKeyCode });
    await this.call("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode });
  }

  /** Shows the page on a screen of this size, in light or dark. */
  async look({ width, height = 900, dark = false }: { width: number; height?: number; dark?: boolean }): Promise<void> {
    await this.call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
    await this.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
  }

  /** A picture of the whole page, as PNG. */
  async picture(): Promise<Uint8Array> {
    const { data } = await this.call("Page.captureScreenshot", { captureBeyondViewport: true });
    return Uint8Array.from(atob(data as string), (char) => char.charCodeAt(0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#socket.onclose = resolve);
    this.#process.kill("SIGKILL");
    await this.#process.status;
    await closed;
    await this.#process.stderr.cancel();
    // Its helper processes end by themselves, and may still write for a moment.
    for (let attempt = 0;; attempt++) {
      try {
        return await Deno.remove(this.#folder, { recursive: true });
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return;
        if (attempt === 50) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  #receive({ id, method, params, result, error }: Message): void {
    if (id !== undefined) {
      const call = this.#calls.get(id)!;
      this.#calls.delete(id);
      if (error === undefined) call.resolve(result!);
      else call.reject(new Error(error.message));
      return;
    }
    switch (method) {
      case "Runtime.exceptionThrown":
      case "Log.entryAdded":
        this.problems.push(JSON.stringify(params));
        break;
      case "Runtime.consoleAPICalled":
        if (["error", "warning", "assert"].includes(String(params!.type))) this.problems.push(JSON.stringify(params));
        break;
      case "Network.requestWillBeSent":
        this.requests.push((params as { request: { url: string } }).request.url);
    }
    this.#events.get(method!)?.();
  }
}

/** The URL that a browser prints when it is ready. */
async function readAddress(stderr: ReadableStream<Uint8Array>): Promise<string> {
  const reader = stderr.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`The browser has ended: ${text}`);
    text += decoder.decode(value, { stream: true });
    const address = /DevTools listening on (ws:\S+)/.exec(text)?.[1];
    if (address === undefined) continue;
    reader.releaseLock();
    return address;
  }
}
