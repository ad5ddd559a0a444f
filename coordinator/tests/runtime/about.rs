//! What a contributor is told of the jobs that it works on.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use raven_coordinator::job::{JobSpec, pseudonym};
use raven_engine::{Category, JobPhase, Verification};
use raven_protocol::{JobCategory, JobId};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const ROWS: Rows = Rows { train: 200, test: 50 };

#[tokio::test(flavor = "multi_thread")]
async fn for_whom_and_for_what_is_told_once_and_again_where_it_changes() {
    let coordinator = Coordinator::start(|_| {}).await;
    let contributor = Contributor::start(coordinator.address, 1, Habits::default());
    let kinds = [Category::Vision, Category::Vision, Category::Science];
    for (number, category) in (1..).zip(kinds) {
        let verification = Verification::None;
        let spec = JobSpec { category, verification, ..job("replica", 1, 48, 16) };
        coordinator.add_job(JobId(number), &ROWS, &spec).await;
        let row = coordinator.finished(JobId(number), PATIENCE).await;
        assert_eq!(row.phase, JobPhase::Completed);
    }
    let requester = pseudonym(coordinator.owner);
    assert_eq!(
        contributor.about(),
        [(requester.clone(), JobCategory::Vision), (requester, JobCategory::Science)]
    );
}
