/** What to do where there is nothing to show. */

export function NoJobs() {
  return (
    <div class="panel empty">
      <h3>No job is listed</h3>
      <p>
        <a href="/sign-up">Sign up</a>, upload a data set, then post a job with <code>"listed": true</code>; its progress appears here.
      </p>
      <pre>
        <code>{`curl -X POST ${location.origin}/v1/jobs \\
  -H "Authorization: Bearer rk_test_…" \\
  -H "Content-Type: application/json" -d @job.json`}</code>
      </pre>
    </div>
  );
}

export function NoContributors() {
  return (
    <div class="panel empty">
      <h3>Nobody is lending computing power now</h3>
      <p>
        <a href="/partner">Register a site</a>, paste its tag into a page, open the page and answer <i>Yes, lend</i>.
      </p>
      <pre>
        <code>{`<script async src="${location.origin}/embed/raven.js?site=pk_…"></script>`}</code>
      </pre>
    </div>
  );
}
