// The matrix products that are measured: `[m, k]` times `[k, n]`.
export const SHAPES = [[64, 784, 256], [128, 128, 128], [256, 256, 256], [512, 512, 512], [1024, 1024, 1024]];

/** How operands lie: as they are multiplied, the left one turned (a weight gradient), the right one (an input gradient). */
export const LAYOUTS = ['ab', 'atb', 'abt'];

export const nameOf = ([m, k, n]) => `${m}x${k}x${n}`;
export const flopsOf = ([m, k, n]) => 2 * m * k * n;
