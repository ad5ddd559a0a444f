import type { Curve } from './api.ts';
import { ACTIVITY_S, useLive, type Live } from './poll.ts';
import { rate } from './format.ts';
import { Chart } from './parts/chart.tsx';
import { NoContributors, NoJobs } from './parts/empty.tsx';
import { JobCard } from './parts/job-card.tsx';
import { Nodes } from './parts/nodes.tsx';
import { Results } from './parts/results.tsx';
import { Top } from './parts/top.tsx';
import { Totals } from './parts/totals.tsx';

/** Times as seconds before the newest point, so that the curve moves and its axis stays. */
function ago(activity: Curve): Curve {
  const now = activity.at(-1)?.[0] ?? 0;
  return activity.map(([time, value]) => [time - now, value] as const);
}

function Network({ live }: { readonly live: Live }) {
  const { snapshot, activity } = live;
  if (!snapshot) return <p class="quiet">{live.isConnected ? 'Loading …' : 'The coordinator does not answer.'}</p>;
  const { stats, nodes } = snapshot;
  return (
    <>
      <Totals stats={stats} />
      <section aria-labelledby="jobs">
        <h2 id="jobs">Jobs</h2>
        {stats.jobs.length > 0 ? stats.jobs.map((job) => <JobCard key={job.id} job={job} />) : <NoJobs />}
      </section>
      <section aria-labelledby="contributors">
        <h2 id="contributors">Contributors</h2>
        {nodes.length > 0 ? <Nodes nodes={nodes} /> : <NoContributors />}
      </section>
      <section aria-labelledby="results">
        <h2 id="results">Results</h2>
        <Results outcomes={stats.outcomes} unpaidShare={stats.unpaidShare} />
      </section>
      <section aria-labelledby="activity">
        <h2 id="activity">Activity</h2>
        <div class="panel">
          <Chart
            title="Tasks per second, last two minutes"
            points={ago(activity)}
            format={rate}
            formatX={(x) => (x === 0 ? 'now' : `${-x} s ago`)}
            xRange={[-ACTIVITY_S, 0]}
            yMin={0}
            height={130}
          />
        </div>
      </section>
    </>
  );
}

export function App() {
  const live = useLive();
  return (
    <>
      <Top here="/">
        <p>
          <span class={`dot ${live.isConnected ? 'good' : 'bad'}`} aria-hidden="true" />
          <span role="status">{live.isConnected ? 'Live' : 'No connection, trying again'}</span>
        </p>
      </Top>
      <main>
        <Network live={live} />
      </main>
    </>
  );
}
