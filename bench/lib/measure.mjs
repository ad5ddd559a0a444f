// Interleaved measurements: every contender is measured in every round, so that whatever else
// the machine does hits all of them alike, and the median of the rounds is what counts. A round
// before the first is not counted: it warms all of them up for as long.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Runs each contender's `run()` once unmeasured, then once per round, in turn, and reverses the
 * order every other round. Resolves to `{name: {median, min, max}}`.
 */
export async function interleave(contenders, rounds, onRound = () => {}) {
  const values = Object.fromEntries(contenders.map(({ name }) => [name, []]));
  for (const { run } of contenders) await run();
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 === 0 ? contenders : [...contenders].reverse();
    for (const { name, run } of order) values[name].push(await run());
    onRound(round);
  }
  return Object.fromEntries(
    Object.entries(values).map(([name, all]) => [
      name,
      { median: median(all), min: Math.min(...all), max: Math.max(...all) },
    ]),
  );
}
