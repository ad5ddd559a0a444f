/** Entry of the GPU's worker: opens the device, measures it, then runs tasks. */

import { serve } from '../kernel-worker/serve.ts';
import type { GpuModule } from './kernel.ts';
import { GpuRunner } from './runner.ts';

serve(async (source, duty, host) => {
  if (!('gpu' in navigator)) throw new Error('WebGPU is missing in workers');
  const glue = (await import(source.glueUrl)) as GpuModule;
  await glue.default({ module_or_path: source.module });
  const kernel = await glue.GpuKernel.open(source.memoryBytes, source.software === true);
  const flopsPerS = Math.round(await kernel.measure());
  host.post({ kind: 'ready', flopsPerS }, []);
  return new GpuRunner(kernel, duty, host);
});
