//! A job that is cancelled right after a restart: what the process before has accepted is
//! looked at on the real kernel, as far as its weights are known.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use raven_coordinator::job::JobSpec;
use raven_coordinator::store::Book;
use raven_engine::{JobPhase, Verification};
use raven_protocol::{JobId, Numerics};
use sqlx::Row as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);

/// Of two contributors: whether a credit of either is void, and how many there are.
const VOIDS: &str = "SELECT void, contributor = (SELECT MIN(contributor) FROM credits) AS is_liar,
     COUNT(*) AS credits FROM credits GROUP BY 1, 2 ORDER BY 1, 2";

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_of_before_a_restart_is_found_though_the_job_is_cancelled_at_once() {
    let spec = JobSpec {
        verification: Verification::Adaptive,
        numerics: Numerics::Strict,
        ..job("replica", 3, 48, 8)
    };
    let coordinator = Coordinator::start(|_| {}).await;
    let slow = Habits { slow: Duration::from_millis(20), ..Habits::default() };
    let contributors = [1, 2].map(|number| Contributor::start(coordinator.address, number, slow));
    coordinator.add_job(ID, &ROWS, &spec).await;
    while coordinator.row(ID).await.step < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(contributors);
    let coordinator = coordinator.restart(|_| {}).await;
    assert!(coordinator.row(ID).await.step < 13, "there is no checkpoint but the first");
    // As if all of it had been taken on one word, and what one of them did first were false.
    coordinator.sql("UPDATE credits SET proof = 'single'").await;
    coordinator
        .sql(
            "UPDATE credits SET digest = zeroblob(32) WHERE round = 0
             AND contributor = (SELECT MIN(contributor) FROM credits)",
        )
        .await;
    let context = coordinator.store_job(ID, &ROWS, &spec).await;
    let resume = coordinator.store.resume_point(ID, None).await.expect("read");
    let words = resume.as_ref().map_or(0, |resume| resume.open.len());
    assert!(words > 4, "{words}");
    coordinator.runtime.add_job(context, resume).await.expect("taken again");
    coordinator.runtime.cancel_job(ID).await.expect("taken");
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Cancelled);
    let found: Vec<(i64, i64)> = coordinator
        .rows(VOIDS)
        .await
        .iter()
        .map(|row| (row.get("void"), row.get("is_liar")))
        .collect();
    assert_eq!(found, [(0, 0), (1, 1)], "all of the liar's is void, and nobody else's");
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
}
