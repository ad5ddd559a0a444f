/** Numbers for people. */

const STEPS: ReadonlyArray<readonly [size: number, prefix: string]> = [
  [1e18, 'E'],
  [1e15, 'P'],
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
];

/** With a decimal prefix and three digits: `12.3 Gflop`. */
export function withPrefix(value: number, unit: string): string {
  const [size, prefix] = STEPS.find(([step]) => Math.abs(value) >= step) ?? [1, ''];
  const scaled = value / size;
  const digits = Math.abs(scaled) >= 100 || scaled === 0 ? 0 : Math.abs(scaled) >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${prefix}${unit}`.trim();
}

export function count(value: number): string {
  return Math.round(value).toLocaleString('en');
}

/** Few digits where the number is large, more where it is small. */
export function rate(value: number): string {
  if (value === 0) return '0';
  return value >= 100 ? count(value) : value.toFixed(value >= 10 ? 1 : 2);
}

export function percent(part: number, digits = 0): string {
  return `${(part * 100).toFixed(digits)} %`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
}

/** `waiting_for_contributors` as words. */
export function words(name: string): string {
  const spaced = name.replaceAll('_', ' ');
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
