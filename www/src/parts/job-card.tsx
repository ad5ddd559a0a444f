import type { Curve, Job, Work } from '../api.ts';
import { count, percent, rate, words } from '../format.ts';
import { Chart } from './chart.tsx';

/** The tone of a job's state, for colour only; the state is written out too. */
function tone(state: string): 'good' | 'wait' | 'bad' | 'quiet' {
  switch (state) {
    case 'running':
    case 'completed':
      return 'good';
    case 'queued':
    case 'waiting_for_contributors':
    case 'paused':
      return 'wait';
    case 'failed':
      return 'bad';
    default:
      return 'quiet';
  }
}

function accuracyCurve(job: Job): Curve {
  return job.evaluation.flatMap(({ epoch, accuracy }) => (accuracy === undefined ? [] : [[epoch, accuracy] as const]));
}

/** A loss with three significant digits. */
function loss(value: number): string {
  return value === 0 ? '0' : value.toPrecision(3);
}

/** Who did the work, once more than processors took part. */
function WorkShares({ work }: { readonly work: readonly Work[] }) {
  const all = work.reduce((sum, { flops }) => sum + flops, 0);
  if (all === 0 || work.every(({ backend }) => backend === 'cpu')) return null;
  return (
    <p class="facts">
      {work.map(({ backend, tasks, flops }) => (
        <span key={backend}>
          {backend.toUpperCase()}: {percent(flops / all)} of the work, {count(tasks)} {tasks === 1 ? 'task' : 'tasks'}
        </span>
      ))}
    </p>
  );
}

export function JobCard({ job }: { readonly job: Job }) {
  const accuracy = accuracyCurve(job);
  const isRunning = job.state === 'running';
  return (
    <article class="panel job">
      <header>
        <h3>{job.name || job.id}</h3>
        <span class={`badge ${tone(job.state)}`}>{words(job.state)}</span>
      </header>
      <progress max={Math.max(1, job.rounds)} value={job.round} aria-label={`Progress of ${job.name || job.id}`} />
      <p class="facts">
        <span>
          Epoch {count(job.epoch)} of {count(job.epochs)}
        </span>
        <span>
          Round {count(job.round)} of {count(job.rounds)}
        </span>
        {isRunning ? <span>{rate(job.imagesPerS)} samples/s</span> : null}
        {isRunning ? (
          <span>
            {count(job.contributors)} {job.contributors === 1 ? 'contributor' : 'contributors'}
          </span>
        ) : null}
      </p>
      <WorkShares work={job.work} />
      {job.loss.length > 0 ? (
        <div class="charts">
          <Chart title="Training loss by round" points={job.loss} format={loss} />
          {accuracy.length > 0 ? (
            <Chart
              title="Test accuracy by epoch"
              points={accuracy}
              format={(value) => percent(value, 1)}
              marks
            />
          ) : null}
        </div>
      ) : (
        <p class="quiet">
          {job.state === 'waiting_for_contributors'
            ? 'It starts as soon as someone lends computing power.'
            : 'The curve appears after the first round.'}
        </p>
      )}
    </article>
  );
}
