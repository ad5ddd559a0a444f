/** Entry of a kernel worker: loads the module, measures it, then runs tasks. */

import type { KernelModule } from './kernel.ts';
import { measure } from './measure.ts';
import { Runner } from './runner.ts';
import { serve } from './serve.ts';
import { Speed } from './speed.ts';

serve(async (source, duty, host) => {
  const glue = (await import(source.glueUrl)) as KernelModule;
  await glue.default({ module_or_path: source.module });
  const kernel = new glue.Kernel(source.memoryBytes);
  const speed = new Speed(source.flopsPerS ?? measure(kernel, host.now));
  host.post({ kind: 'ready', flopsPerS: Math.round(speed.flopsPerS) }, []);
  return new Runner(kernel, speed, duty, host);
});
