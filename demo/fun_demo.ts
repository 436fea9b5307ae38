/** Who the job is for: the named arguments of the demo's jobs. */
export interface Person {
  name: string;
  age: number;
}

/**
 * The task of the demo: takes a random time of up to a second, and returns it in seconds. It is sent to the workers as its text, so it uses nothing
 * but its arguments and what the platform has.
 */
export async function funDemo(_a: number, _b: number, _c: number, _person: Person): Promise<number> {
  const seconds = Math.random();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return seconds;
}
