//! Jobs that are really trained, and what the books say of them afterwards.

mod support;

use raven_coordinator::job::JobSpec;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::store::{Book, JobRow, StoreError, requester};
use raven_engine::ledger::{Account, Exact, Refusal};
use raven_engine::money::NanoUsd;
use raven_engine::{Cause, ContributorId, JobPhase, Verification};
use raven_protocol::{Earnings, JobId, Keeps};
use std::time::Duration;
use support::Coordinator;
use support::contributor::{Contributor, Habits};
use support::data::{Rows, job};

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);
/// What a test key begins with.
const TRIAL: i64 = 1_000_000_000_000;

async fn posted(coordinator: &Coordinator, account: Account) -> i64 {
    let balance = coordinator.store.balance(Book::Test, account).await.expect("readable");
    assert_eq!((balance.held_in, balance.held_out), (0, 0), "{account}: nothing is left open");
    balance.posted
}

/// Whole nano-USD of so many percent of what a job's work cost.
fn percent(row: &JobRow, percent: i128) -> i64 {
    let exact = row.charge.units() * percent;
    i64::try_from(exact / Exact::PER_NANO_USD).expect("small")
}

/// Compares the books with the credits of a job that has ended.
async fn check(coordinator: &Coordinator, row: &JobRow, by: &[Account]) {
    let audited = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    assert!(audited.entries > 10, "{audited:?}");
    let mut earned = 0;
    for account in by {
        earned += posted(coordinator, *account).await;
    }
    assert_eq!(earned, percent(row, 100), "all earnings are the operational cost");
    let margin = [(Account::MasterNode, percent(row, 5)), (Account::ProtocolFee, percent(row, 2))];
    for (account, amount) in margin {
        assert_eq!(posted(coordinator, account).await, amount, "{account}");
    }
    let site = posted(coordinator, Account::Site(coordinator.site)).await;
    let reserve = posted(coordinator, Account::Reserve).await;
    assert_eq!(site + reserve, percent(row, 3), "the partners' share");
    let charged = earned + percent(row, 5) + percent(row, 3) + percent(row, 2);
    assert!(charged <= row.escrow.0, "{charged} of {:?}", row.escrow);
    assert_eq!(posted(coordinator, Account::Escrow(ID)).await, 0);
    let left = posted(coordinator, requester(coordinator.owner)).await;
    assert_eq!(left, TRIAL - charged, "the rest went back");
}

fn contributors(coordinator: &Coordinator, count: u8) -> Vec<Contributor> {
    (1..=count)
        .map(|number| Contributor::start(coordinator.address, number, Habits::default()))
        .collect()
}

async fn accounts(coordinator: &Coordinator) -> Vec<Account> {
    let credited = coordinator.store.job_contributors(ID).await.expect("read");
    credited.into_iter().map(|(contributor, _)| Account::Contributor(contributor)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_and_margins_are_the_price_to_the_nano_usd() {
    for verification in [Verification::None, Verification::Adaptive] {
        let coordinator = Coordinator::start(|_| {}).await;
        let _contributors = contributors(&coordinator, 3);
        let spec = JobSpec { verification, ..job("replica", 3, 96, 16) };
        coordinator.add_job(ID, &ROWS, &spec).await;
        let row = coordinator.finished(ID, PATIENCE).await;
        assert_eq!((row.phase, row.reason.clone()), (JobPhase::Completed, None));
        let by = accounts(&coordinator).await;
        if verification == Verification::None {
            check(&coordinator, &row, &by).await;
        } else {
            // Beyond the allowance the operator pays the same, without a margin.
            let beyond = -(posted(&coordinator, Account::Operator).await + TRIAL);
            coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
            let mut earned = 0;
            for account in by {
                earned += posted(&coordinator, account).await;
            }
            let of_job = earned - beyond;
            assert!((of_job - percent(&row, 100)).abs() <= 1, "{earned} {beyond} {row:?}");
            assert_eq!(posted(&coordinator, Account::MasterNode).await, percent(&row, 5));
        }
    }
}

/// As in the worked example of the books: Ann keeps her key, Cleo has none, and Ben leaves
/// his earnings to the site through which all three came. The node came through none.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_or_by_choice_the_site_earns() {
    let coordinator = Coordinator::start(|_| {}).await;
    let ann = Habits::default();
    let ben = Habits { earnings: Earnings::Site, ..ann };
    let cleo = Habits { keeps: Keeps::Visit, ..ann };
    // Nobody is there whom it could leave them to.
    let node = Habits { keeps: Keeps::Visit, earnings: Earnings::Site, ..ann };
    let visit = |number, habits| {
        Contributor::start_through(coordinator.address, number, habits, Some(coordinator.ticket()))
    };
    let _site = [visit(1, ann), visit(2, ben), visit(3, cleo)];
    let _node = Contributor::start(coordinator.address, 4, node);
    let spec = JobSpec { verification: Verification::None, ..job("replica", 20, 96, 16) };
    coordinator.add_job(ID, &ROWS, &spec).await;
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!((row.phase, row.reason.clone()), (JobPhase::Completed, None));
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");

    let credited = coordinator.flops_of(ID).await;
    assert_eq!(credited.len(), 4, "all four have worked: {credited:?}");
    let key = |number: u8| {
        let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
        ContributorId(key.verifying_key().to_bytes())
    };
    let (mut earned, mut left_to_site, mut of_site, mut of_reserve) = (0, 0, 0, 0);
    for (contributor, flops) in credited {
        // Servers: 20,000 pico-USD for 50 Mflop are 0.4 nano-USD for a million flops.
        let exact = flops * 4 / 10_000_000;
        let posted = posted(&coordinator, Account::Contributor(contributor)).await;
        let is_own = contributor == key(1) || contributor == key(4);
        let expected = if is_own { exact } else { 0 };
        assert!((posted - expected).abs() <= 1, "{posted} of {exact}, own: {is_own}");
        earned += posted;
        left_to_site += if is_own { 0 } else { exact };
        let share = if contributor == key(4) { &mut of_reserve } else { &mut of_site };
        *share += exact;
    }
    let site = posted(&coordinator, Account::Site(coordinator.site)).await;
    let reserve = posted(&coordinator, Account::Reserve).await;
    let expected = left_to_site + of_site * 3 / 100;
    assert!((site - expected).abs() <= 3, "{site} of {expected}");
    assert!((reserve - of_reserve * 3 / 100).abs() <= 1, "{reserve} of {of_reserve}");
    let all = percent(&row, 100) + percent(&row, 3);
    assert_eq!(earned + site + reserve, all, "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_pays_nothing_twice() {
    let spec = JobSpec { verification: Verification::None, ..job("replica", 3, 96, 16) };
    let coordinator = Coordinator::start(|_| {}).await;
    let slow = Habits { slow: Duration::from_millis(40), ..Habits::default() };
    let contributor = Contributor::start(coordinator.address, 1, slow);
    coordinator.add_job(ID, &ROWS, &spec).await;
    while coordinator.row(ID).await.step < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(contributor);
    let coordinator = coordinator.restart(|_| {}).await;
    let before = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    let context = coordinator.store_job(ID, &ROWS, &spec).await;
    let resume = coordinator.store.resume_point(ID, None).await.expect("read");
    coordinator.runtime.add_job(context, resume).await.expect("taken again");
    let _contributors = contributors(&coordinator, 2);
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    let by = accounts(&coordinator).await;
    check(&coordinator, &row, &by).await;
    let after = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    assert!(before.entries < after.entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_job_did_not_use_goes_back() {
    let coordinator = Coordinator::start(|_| {}).await;
    let context = coordinator.store_job(ID, &ROWS, &job("replica", 3, 96, 16)).await;
    let escrow = coordinator.row(ID).await.escrow;
    assert!(escrow.0 > 0);
    let held = coordinator.store.balance(Book::Test, Account::Escrow(ID)).await.expect("readable");
    assert_eq!(held.posted, escrow.0);
    let left = posted(&coordinator, requester(coordinator.owner)).await;
    assert_eq!(left, TRIAL - escrow.0);
    coordinator.store.end_job(ID, Cause::Owner, None).await.expect("ended");
    drop(context);
    assert_eq!(posted(&coordinator, requester(coordinator.owner)).await, TRIAL);
    assert_eq!(posted(&coordinator, Account::Escrow(ID)).await, 0);
    // Ending it again changes nothing.
    let before = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    coordinator.store.end_job(ID, Cause::Owner, None).await.expect("ended");
    assert_eq!(coordinator.store.audit(Book::Test).await.expect("the auditor agrees"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hold_no_work() {
    let coordinator = Coordinator::start(|_| {}).await;
    let poor = coordinator.store.add_key(&ApiKey::generate(KeyMode::Live)).await.expect("a key");
    coordinator.store_job(ID, &ROWS, &job("replica", 3, 96, 16)).await;
    let row = coordinator.row(ID).await;
    let new = |id| raven_coordinator::store::NewJob {
        id,
        owner: poor,
        dataset: row.dataset,
        spec: row.spec.clone(),
        facts: row.facts.clone(),
        kernel: row.kernel,
        created: row.created,
    };
    let error = coordinator.store.add_job(&new(JobId(2)), 100, None).await.expect_err("refused");
    assert!(
        matches!(&error, StoreError::Books(Refusal::Funds { available: NanoUsd(0), needed, .. })
            if *needed == row.escrow),
        "{error}"
    );
    assert!(coordinator.store.job(poor, JobId(2)).await.expect("read").is_none());
    let paid = coordinator.store.deposit(poor, row.escrow, "payment 1").await.expect("entered");
    let again = coordinator.store.deposit(poor, row.escrow, "payment 1").await.expect("entered");
    assert_ne!(paid, again, "a payment is entered once");
    coordinator.store.add_job(&new(JobId(3)), 100, None).await.expect("paid for");
    coordinator.store.audit(Book::Live).await.expect("the auditor agrees");
}
