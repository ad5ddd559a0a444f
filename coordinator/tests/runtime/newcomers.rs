//! What somebody of whom nothing is known is paid, and when: through engine, store and books.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, GPU_KERNEL, Habits, Poison};
use crate::support::data::{Rows, job};
use raven_coordinator::job::{JobSpec, resume};
use raven_coordinator::store::Book;
use raven_engine::ledger::Account;
use raven_engine::money::Charge;
use raven_engine::{ContributorId, JobPhase, Verification};
use raven_protocol::{DeviceClass, JobId, Numerics};
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);

fn id(number: u8) -> ContributorId {
    let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
    ContributorId(key.verifying_key().to_bytes())
}

/// Of a contributor at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// What it may spend, and what is held for it until it has matured.
    own: i64,
    held: i64,
    /// Checkpoints after work: only settled rounds are in one.
    checkpoints: i64,
}

async fn look(coordinator: &Coordinator) -> BTreeMap<ContributorId, Seen> {
    // One statement sees one moment.
    let rows = coordinator
        .rows(
            "SELECT c.contributor, a.posted, a.held_out, a.held_in,
                 (SELECT COUNT(*) FROM checkpoints WHERE step > 0) AS checkpoints
             FROM (SELECT DISTINCT contributor FROM credits) c
             JOIN accounts a ON a.name = 'contributor:' || lower(hex(c.contributor))",
        )
        .await;
    let seen = rows.iter().map(|row| {
        let who: Vec<u8> = row.get("contributor");
        let own = row.get::<i64, _>("posted") - row.get::<i64, _>("held_out");
        let seen = Seen { own, held: row.get("held_in"), checkpoints: row.get("checkpoints") };
        (ContributorId(who.try_into().expect("32 bytes")), seen)
    });
    seen.collect()
}

/// How the results of a contributor that count were proven, in the order of their rounds.
async fn proofs(coordinator: &Coordinator, who: ContributorId) -> Vec<String> {
    let rows = coordinator
        .rows("SELECT contributor, proof FROM credits WHERE void = 0 ORDER BY attempt, round, part")
        .await;
    let own = rows.iter().filter(|row| row.get::<Vec<u8>, _>("contributor") == who.0);
    own.map(|row| row.get("proof")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_pay_is_held_until_its_work_has_been_confirmed() {
    let coordinator = Coordinator::start(|_| {}).await;
    let slow = Habits { slow: Duration::from_millis(20), ..Habits::default() };
    let _honest = Contributor::start(coordinator.address, 1, slow);
    // Two results are as they should be; what they earned is held like everybody's.
    let poison = Some(Poison { below: u32::MAX, factor: -4.0, after: 2 });
    let _liar = Contributor::start(coordinator.address, 2, Habits { poison, ..slow });
    while coordinator.runtime.snapshot().nodes.len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let spec = JobSpec { verification: Verification::Adaptive, ..job("replica", 2, 96, 16) };
    coordinator.add_job(ID, &ROWS, &spec).await;
    let mut waited = 0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let row = loop {
        let seen = look(&coordinator).await;
        for (who, it) in &seen {
            if it.checkpoints == 0 && *who == id(1) {
                assert_eq!(it.own, 0, "nothing is settled yet: {it:?}");
                waited += i64::from(it.held > 0);
            }
            if *who == id(2) {
                assert_eq!(it.own, 0, "its open work is void as soon as it has lied: {it:?}");
            }
        }
        let row = coordinator.store.job(coordinator.owner, ID).await.expect("read");
        if let Some(row) = row.filter(|row| row.phase.is_end()) {
            break row;
        }
        assert!(tokio::time::Instant::now() < deadline, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!((row.phase, row.reason.clone()), (JobPhase::Completed, None));
    assert!(waited > 0, "its pay was seen while it waited");
    let proofs = proofs(&coordinator, id(1)).await;
    let first: BTreeSet<&str> = proofs.iter().take(5).map(String::as_str).collect();
    assert!(first.iter().all(|proof| ["agreed", "refereed"].contains(proof)), "{proofs:?}");
    assert!(first.contains("refereed"), "one of them by the referee's own computing: {proofs:?}");
    let ended = look(&coordinator).await;
    let honest = ended.get(&id(1)).copied().unwrap_or_default();
    assert!(honest.own > 0 && honest.held == 0, "{honest:?}");
    let liar = ended.get(&id(2)).copied().unwrap_or_default();
    assert_eq!((liar.own, liar.held), (0, 0), "what was held for it went back");
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
}

/// What is asked for is low: a test's machine has other things to do. Every class and the
/// GPU's bonus can be told apart by its rate.
const BOUNDED: &str = r#"UPDATE jobs SET facts = json_set(facts, '$.rates', json('{"phone": 10000,
    "desktop": 11000, "server": 12000, "bonus": {"gpu_thousandths": 100, "stay_thousandths": 0,
    "stay_minutes": 0}, "least": {"desktop_mflops": 200, "server_mflops": 200, "gpu_mflops": 200}}'))"#;

/// One round of two micro-batches of more than a hundred Mflop, so that work is measured.
async fn train(coordinator: &Coordinator, job_id: JobId) {
    let mut spec = job("replica", 1, 200, 100);
    let layers = serde_json::json!([
        {"type": "flatten"},
        {"type": "dense", "units": 4096, "activation": "relu"},
        {"type": "dense", "units": 4}
    ]);
    spec.model.layers = serde_json::from_value(layers).expect("layers");
    (spec.numerics, spec.verification) = (Numerics::Relaxed, Verification::None);
    coordinator.store_job(job_id, &Rows { train: 200, test: 50 }, &spec).await;
    coordinator.sql(BOUNDED).await;
    let row = coordinator.store.job(coordinator.owner, job_id).await.expect("read").expect("a job");
    let kernel = coordinator.runtime.kernel();
    let (context, point) = resume(&coordinator.store, &row, kernel).await.expect("lowered");
    coordinator.runtime.add_job(Arc::new(context), point).await.expect("taken");
    let row = coordinator.finished(job_id, PATIENCE).await;
    assert_eq!((row.phase, row.reason.clone()), (JobPhase::Completed, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_a_gpu_desktop_and_delivers_little_is_paid_as_what_it_delivers() {
    let coordinator = Coordinator::start(|config| config.gpu_kernel = Some(GPU_KERNEL)).await;
    let poison = Some(Poison { below: u32::MAX, factor: 1.0, after: 0 });
    let device = Some(DeviceClass::Desktop);
    let gpu = Habits { gpu: true, poison, device, ..Habits::default() };
    // Both say the same. What one round is takes the second a second and a half.
    let slow = Duration::from_millis(1_500);
    for (number, habits) in [(1, gpu), (2, Habits { slow, ..gpu })] {
        let contributor = Contributor::start(coordinator.address, number, habits);
        train(&coordinator, JobId(number.into())).await;
        contributor.kill();
    }
    let credits = coordinator.rows("SELECT contributor, flops, rate FROM credits").await;
    // A desktop's with a GPU's bonus, and a phone's without.
    for (who, expected) in [(id(1), 12_100), (id(2), 10_000)] {
        let own: Vec<(i64, i64)> = credits
            .iter()
            .filter(|row| row.get::<Vec<u8>, _>("contributor") == who.0)
            .map(|row| (row.get("flops"), row.get("rate")))
            .collect();
        assert!(!own.is_empty() && own.iter().all(|(_, rate)| *rate == expected), "{own:?}");
        // And so the books have it.
        let units: i128 =
            own.iter().map(|&(flops, rate)| i128::from(flops) * i128::from(rate)).sum();
        let whole = i64::try_from(units / Charge::PER_NANO_USD).expect("small");
        let paid = coordinator.store.balance(Book::Test, Account::Contributor(who)).await;
        let paid = paid.expect("readable").posted;
        assert!((whole..=whole + 1).contains(&paid), "{paid} of {whole}");
    }
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
}
