/** Loading of the kernel modules, each once for all workers. */

import { transferred } from './traffic.ts';

export interface KernelFiles {
  /** Content id of the module. */
  readonly kernel: string;
  readonly glueUrl: string;
  readonly module: WebAssembly.Module;
  /** What was moved over the network to get it. */
  readonly bytes: number;
}

/** What a module takes. */
interface ModuleSize {
  /** Compressed, where the browser does not say what it moved. */
  readonly bytesGuess: number;
  /** Its JavaScript door and its description, compressed; each worker loads the door, from the cache after the first. */
  readonly glueBytes: number;
}

const KERNEL: ModuleSize = { bytesGuess: 400_000, glueBytes: 8_000 };
const GPU: ModuleSize = { bytesGuess: 230_000, glueBytes: 12_000 };

/** What is set aside before the files are fetched. */
export const KERNEL_FILES_BYTES = KERNEL.bytesGuess + KERNEL.glueBytes;
export const GPU_FILES_BYTES = GPU.bytesGuess + GPU.glueBytes;

/** Why no kernel can run here; `unsupported` is the browser's lack, `load` the network's or the server's. */
export class KernelLoadError extends Error {
  readonly kind: 'unsupported' | 'load';

  constructor(kind: 'unsupported' | 'load', message: string) {
    super(message);
    this.name = 'KernelLoadError';
    this.kind = kind;
  }
}

/** `(func (result v128) i32.const 0 i8x16.splat)`: valid only where the engine knows 128-bit SIMD. */
const SIMD_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

export function hasSimd(): boolean {
  return typeof WebAssembly === 'object' && WebAssembly.validate(SIMD_PROBE);
}

/**
 * Fetches and compiles the processor's module.
 *
 * @param filesUrl folder of this version's immutable files, ending in a slash.
 * @throws {KernelLoadError}
 */
export async function loadKernel(filesUrl: string): Promise<KernelFiles> {
  if (!hasSimd()) throw new KernelLoadError('unsupported', 'WebAssembly with 128-bit SIMD is missing');
  return loadModule(filesUrl, 'kernel', KERNEL);
}

/**
 * Fetches and compiles the GPU's module.
 *
 * @param filesUrl as for {@link loadKernel}.
 * @throws {KernelLoadError}
 */
export async function loadGpu(filesUrl: string): Promise<KernelFiles> {
  return loadModule(filesUrl, 'gpu', GPU);
}

async function loadModule(filesUrl: string, name: 'kernel' | 'gpu', size: ModuleSize): Promise<KernelFiles> {
  const folder = new URL(`${name}/`, filesUrl);
  const description = await get(new URL(`${name}.json`, folder)).then((response) => response.json() as Promise<unknown>);
  const kernel = (description as { kernel?: unknown } | null)?.kernel;
  if (typeof kernel !== 'string' || !/^[0-9a-f]{64}$/.test(kernel)) {
    throw new KernelLoadError('load', `${name}.json: kernel is not an id`);
  }
  const url = new URL(`raven_${name}.wasm`, folder);
  const response = await get(url);
  try {
    const module = await compile(response);
    const bytes = transferred(url.href, size.bytesGuess) + size.glueBytes;
    return { kernel, glueUrl: new URL(`raven_${name}.js`, folder).href, module, bytes };
  } catch (error) {
    throw new KernelLoadError('load', error instanceof Error ? error.message : 'the module does not compile');
  }
}

async function get(url: URL): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { credentials: 'omit' });
  } catch {
    throw new KernelLoadError('load', `${url.pathname} could not be fetched`);
  }
  if (!response.ok) throw new KernelLoadError('load', `${url.pathname}: status ${response.status}`);
  return response;
}

/** Compiles while the bytes arrive where the server names the type that this asks for. */
async function compile(response: Response): Promise<WebAssembly.Module> {
  const type = response.headers.get('content-type') ?? '';
  if (type.startsWith('application/wasm')) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer());
}
