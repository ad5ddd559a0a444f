//! Jobs that are really trained, and what the books say of them afterwards.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use raven_coordinator::job::{JobSpec, resume};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::store::{Book, JobRow, ProofKind, StoreError, requester};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Exact, Refusal};
use raven_engine::money::{Charge, NanoUsd};
use raven_engine::{Cause, ContributorId, JobPhase, Rates, Verification};
use raven_protocol::{Earnings, JobId, Keeps};
use sqlx::Row as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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

/// What the credits of a job that has ended say: what each contributor earned, exactly,
/// from the job and from the operator.
async fn credited(coordinator: &Coordinator) -> BTreeMap<ContributorId, [i128; 2]> {
    let rows = coordinator
        .rows("SELECT contributor, flops, rate, payer = 'job' AS own FROM credits WHERE void = 0")
        .await;
    let mut earned: BTreeMap<ContributorId, [i128; 2]> = BTreeMap::new();
    for row in rows {
        let contributor: Vec<u8> = row.get("contributor");
        let contributor = ContributorId(contributor.try_into().expect("32 bytes"));
        let (flops, rate): (i64, i64) = (row.get("flops"), row.get("rate"));
        let own: bool = row.get("own");
        let sums = earned.entry(contributor).or_default();
        sums[usize::from(!own)] += i128::from(flops) * i128::from(rate);
    }
    earned
}

/// Compares the books with the credits of a job that has ended, to the nano-USD;
/// answers what the operator has paid.
async fn check(coordinator: &Coordinator, row: &JobRow) -> i64 {
    let audited = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    assert!(audited.entries > 3, "{audited:?}");
    let whole = |units: i128| i64::try_from(units / Charge::PER_NANO_USD).expect("small");
    let credited = credited(coordinator).await;
    let (mut own, mut operators, mut earned) = (0, 0, 0);
    for (contributor, [of_job, of_operator]) in credited {
        let paid = posted(coordinator, Account::Contributor(contributor)).await;
        // A part of a nano-USD of each payer may be given by largest remainder.
        let least = whole(of_job) + whole(of_operator);
        assert!((least..=least + 2).contains(&paid), "{paid}, its credits say {least}");
        own += of_job;
        operators += of_operator;
        earned += paid;
    }
    assert_eq!(own, row.charge.units(), "the job was charged for its own credits");
    assert_eq!(earned, whole(own) + whole(operators), "all earnings are the operational cost");
    let beyond = -(posted(coordinator, Account::Operator).await + TRIAL);
    assert_eq!(beyond, whole(operators), "no margin on what the operator pays");
    let margin = [(Account::MasterNode, percent(row, 5)), (Account::ProtocolFee, percent(row, 2))];
    for (account, amount) in margin {
        assert_eq!(posted(coordinator, account).await, amount, "{account}");
    }
    let site = posted(coordinator, Account::Site(coordinator.site)).await;
    let reserve = posted(coordinator, Account::Reserve).await;
    assert_eq!(site + reserve, percent(row, 3), "the partners' share");
    let charged = percent(row, 100) + percent(row, 5) + percent(row, 3) + percent(row, 2);
    assert!(charged <= row.escrow.0, "{charged} of {:?}", row.escrow);
    assert_eq!(posted(coordinator, Account::Escrow(ID)).await, 0);
    let left = posted(coordinator, requester(coordinator.owner)).await;
    assert_eq!(left, TRIAL - charged, "the rest went back");
    beyond
}

fn contributors(coordinator: &Coordinator, count: u8) -> Vec<Contributor> {
    (1..=count)
        .map(|number| Contributor::start(coordinator.address, number, Habits::default()))
        .collect()
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
        let beyond = check(&coordinator, &row).await;
        if verification == Verification::None {
            assert_eq!(beyond, 0, "one execution each");
        }
    }
}

/// As in the worked example of the books: Ann keeps her key, Cleo has none, and Ben leaves
/// his earnings to the site through which all three came. The node came through none.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_or_by_choice_the_site_earns() {
    let coordinator = Coordinator::start(|_| {}).await;
    let proven = coordinator.store.origin_proven(
        coordinator.site,
        "http://news.test",
        ProofKind::File,
        UnixMs::now(),
    );
    proven.await.expect("noted");
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
        // All say that they are servers, which no visitor of a page is paid as: 16,000 and
        // 20,000 pico-USD for 50 Mflop are 0.32 and 0.4 nano-USD for a million flops.
        let exact = flops * if contributor == key(4) { 40 } else { 32 } / 100_000_000;
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
    let step = coordinator.row(ID).await.step;
    assert!(!step.is_multiple_of(7), "there are rounds that no checkpoint holds");
    let before = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    let context = coordinator.store_job(ID, &ROWS, &spec).await;
    let resume = coordinator.store.resume_point(ID, None).await.expect("read");
    coordinator.runtime.add_job(context, resume).await.expect("taken again");
    let _contributors = contributors(&coordinator, 2);
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    let beyond = check(&coordinator, &row).await;
    // Rounds since the checkpoint are done again, whole, and whoever does so is paid.
    let redone =
        coordinator.rows("SELECT SUM(flops) AS flops FROM credits WHERE payer = 'operator'").await;
    let redone: i64 = redone[0].get("flops");
    let per_round = row.facts.flops_planned / u64::from(row.facts.steps);
    assert!(redone.unsigned_abs() >= per_round * u64::from(step % 7), "{redone} of {per_round}");
    assert!(beyond > 0);
    assert_eq!(row.flops, row.facts.flops_planned, "and its owner pays once");
    let after = coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    assert!(before.entries < after.entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_taken_up_again_pays_the_rates_that_are_stored_with_it() {
    let coordinator = Coordinator::start(|_| {}).await;
    let spec = JobSpec { verification: Verification::None, ..job("replica", 3, 96, 16) };
    coordinator.store_job(ID, &ROWS, &spec).await;
    // Who has stayed for no time at all gets half of 8,000 on top.
    let rates = r#"UPDATE jobs SET facts = json_set(facts, '$.rates', json('{"phone": 8000, "desktop": 8000,
        "server": 8000, "bonus": {"gpu_thousandths": 7, "stay_thousandths": 500, "stay_minutes": 0}}'))"#;
    coordinator.sql(rates).await;
    let row = coordinator.row(ID).await;
    let kernel = coordinator.runtime.kernel();
    let (context, point) = resume(&coordinator.store, &row, kernel).await.expect("resumes");
    coordinator.runtime.add_job(Arc::new(context), point).await.expect("taken");
    let _contributors = contributors(&coordinator, 2);
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    check(&coordinator, &row).await;
    let paid = coordinator.rows("SELECT DISTINCT rate FROM credits").await;
    let paid: Vec<i64> = paid.iter().map(|row| row.get("rate")).collect();
    assert_eq!(paid, [12_000]);
    // One that was stored before there were any has those of always.
    coordinator.sql("UPDATE jobs SET facts = json_remove(facts, '$.rates')").await;
    assert_eq!(coordinator.row(ID).await.facts.rates, Rates::FLAT);
}

/// A job whose books are made wrong by `statement` while it runs ends, and says why.
async fn ends_with_wrong_books(statement: &'static str, why: &str) -> Coordinator {
    let coordinator = Coordinator::start(|_| {}).await;
    let spec = JobSpec { verification: Verification::None, ..job("replica", 30, 96, 16) };
    let slow = Habits { slow: Duration::from_millis(5), ..Habits::default() };
    let _contributor = Contributor::start(coordinator.address, 1, slow);
    coordinator.add_job(ID, &ROWS, &spec).await;
    while coordinator.row(ID).await.step < 9 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    coordinator.sql(statement).await;
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Failed, Some(Cause::Coordinator)));
    assert!(row.reason.as_ref().is_some_and(|reason| reason.contains(why)), "{:?}", row.reason);
    let is_live = || coordinator.runtime.job_live(ID).is_some_and(|live| !live.phase.is_end());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while is_live() {
        assert!(tokio::time::Instant::now() < deadline, "the engine lets go of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    coordinator
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_books_end_a_job_and_what_is_held_for_nobody_goes_back() {
    let coordinator =
        ends_with_wrong_books("UPDATE pay_lines SET exact = 'x'", "pay_lines.exact").await;
    let escrow = coordinator.store.balance(Book::Test, Account::Escrow(ID)).await;
    assert_eq!(escrow.expect("readable").posted, 0);
    coordinator.store.audit(Book::Test).await.expect("the entries are right");

    // What was held before the fault is paid, and the rest goes back.
    let coordinator = ends_with_wrong_books(
        "WITH RECURSIVE n (round) AS (SELECT 0 UNION ALL SELECT round + 1 FROM n WHERE round < 400)
             INSERT OR IGNORE INTO pay_rounds (job, attempt, round) SELECT 1, 0, round FROM n",
        "pay_rounds",
    )
    .await;
    let escrow = coordinator.store.balance(Book::Test, Account::Escrow(ID)).await;
    assert_eq!(escrow.expect("readable").posted, 0);
    coordinator.store.audit(Book::Test).await.expect("the entries are right");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escrow_that_is_gone_ends_its_job() {
    let statement = "UPDATE accounts SET posted = held_out WHERE name LIKE 'escrow:%'";
    ends_with_wrong_books(statement, "nano-USD are needed").await;
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
