/** How many steps of the Collatz sequence lead from a number to 1, after a few milliseconds of other work. */
export async function steps(n: number): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 3));
  let count = 0;
  for (; n !== 1; count++) n = n % 2 === 0 ? n / 2 : 3 * n + 1;
  return count;
}
