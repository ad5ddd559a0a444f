//! GPUs over real sockets: they confirm each other by projections, and one that
//! lies is found. The processors' module stands in for theirs, with results that
//! are a little off.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, GPU_KERNEL, Habits, Poison};
use crate::support::data::{Rows, job};
use raven_engine::{JobPhase, Verification};
use raven_protocol::{GoodbyeReason, JobId, Numerics};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
const ROWS: Rows = Rows { train: 600, test: 150 };

/// A GPU whose gradients are multiplied by a factor.
fn gpu(factor: f32) -> Habits {
    let poison = Some(Poison { below: u32::MAX, factor, after: 0 });
    Habits { gpu: true, poison, ..Habits::default() }
}

/// Trains in mode `triple`; answers executions by why they were believed, and why
/// each contributor was sent away.
async fn train(habits: &[Habits]) -> (BTreeMap<String, u64>, Vec<Option<GoodbyeReason>>) {
    let coordinator = Coordinator::start(|config| config.gpu_kernel = Some(GPU_KERNEL)).await;
    let contributors: Vec<Contributor> = (1..)
        .zip(habits)
        .map(|(number, &habits)| Contributor::start(coordinator.address, number, habits))
        .collect();
    while coordinator.runtime.snapshot().nodes.len() < habits.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut spec = job("replica", 6, 96, 16);
    (spec.numerics, spec.verification) = (Numerics::Relaxed, Verification::Triple);
    let id = JobId(1);
    coordinator.add_job(id, &ROWS, &spec).await;
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!((row.phase, row.reason), (JobPhase::Completed, None));
    let summary = coordinator.store.job_summary(id).await.expect("read");
    let accuracy = summary.evaluation.and_then(|(_, means)| means.accuracy).expect("evaluated");
    assert!(accuracy > 0.9, "accuracy {accuracy}");
    let executions = coordinator.store.executions(id).await.expect("read");
    let mut by_proof: BTreeMap<String, u64> = BTreeMap::new();
    for one in executions {
        *by_proof.entry(format!("{:?}", one.proof)).or_default() += one.count;
    }
    println!("{by_proof:?}");
    let goodbyes = contributors.iter().map(Contributor::goodbye).collect();
    coordinator.runtime.shutdown().await;
    (by_proof, goodbyes)
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_confirm_each_other_once_they_are_vetted() {
    let (proofs, goodbyes) = train(&[gpu(1.0), gpu(1.000_001), gpu(0.999_999)]).await;
    let agreed = proofs.iter().find(|(proof, _)| proof.to_lowercase().contains("agreed"));
    assert!(agreed.is_some_and(|(_, count)| *count >= 3 * 20), "{proofs:?}");
    assert!(goodbyes.iter().all(|reason| *reason != Some(GoodbyeReason::Excluded)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_lies_is_excluded_and_the_others_are_not() {
    let habits = [gpu(1.0), gpu(1.000_001), gpu(0.999_999), gpu(-1.0), Habits::default()];
    let (_, goodbyes) = train(&habits).await;
    let excluded: Vec<bool> =
        goodbyes.iter().map(|reason| *reason == Some(GoodbyeReason::Excluded)).collect();
    assert_eq!(excluded, [false, false, false, true, false]);
}
