/**
 * A task module: its exports are what workers can run.
 *
 * @module
 */

/**
 * The prime factors of a whole number, by trial division.
 *
 * @param n At least 2.
 * @returns The factors in ascending order; their product is `n`.
 */
export function factorize(n: number): number[] {
  const factors: number[] = [];
  for (let divisor = 2; divisor * divisor <= n; divisor++) {
    while (n % divisor === 0) {
      factors.push(divisor);
      n /= divisor;
    }
  }
  if (n > 1) factors.push(n);
  return factors;
}
