//! What a session says of a lease that it was given: results that do not fit their task,
//! that come twice, or never.

use crate::hostile::{PATIENCE, ROWS, key, start, still_trains, unchecked};
use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits};
use crate::support::socket::Socket;
use raven_engine::JobPhase;
use raven_graph::{DType, TensorType};
use raven_protocol::frame::{TensorPart, encode};
use raven_protocol::{
    Backend, FromContributor, GoodbyeReason, JobId, ResultDigest, TaskId, TaskMessage, TensorView,
    ToContributor, result_digest,
};
use std::time::Duration;

/// A session that was given a task.
struct Leased {
    socket: Socket,
    task: TaskMessage,
}

async fn leased(coordinator: &Coordinator, number: u8) -> Leased {
    let mut socket = Socket::connect(coordinator.address).await;
    socket.open(&key(number), coordinator.runtime.kernel()).await;
    loop {
        if let (ToContributor::Task(task), _) = socket.receive().await {
            return Leased { socket, task: *task };
        }
    }
}

impl Leased {
    async fn commit(&mut self, digest: ResultDigest) {
        let lease = self.task.lease;
        self.socket
            .send(&FromContributor::Commit { lease, digest, elapsed_ms: 5, backend: Backend::Cpu })
            .await;
    }

    async fn asked(&mut self) {
        loop {
            match self.socket.receive().await.0 {
                ToContributor::Reveal { lease } if lease == self.task.lease => return,
                ToContributor::Goodbye { reason, detail, .. } => panic!("{reason:?}: {detail}"),
                _ => {}
            }
        }
    }

    async fn result(&mut self, parts: &[TensorPart<'_>]) {
        let lease = self.task.lease;
        self.socket.send_bytes(encode(&FromContributor::Result { lease }, parts)).await;
    }
}

/// Zeros in the shapes that the task declares, over sixteen samples.
fn zeros(context: &raven_coordinator::job::JobContext) -> Vec<(String, TensorType, Vec<u8>)> {
    let outputs = context.train.outputs.iter().map(|output| {
        let ty = context.train.graph.output_type(&output.name).expect("an output").clone();
        let mut bytes = vec![0; ty.bytes().expect("small") as usize];
        if output.name == context.train.count {
            bytes = 16f32.to_le_bytes().to_vec();
        }
        (output.name.clone(), ty, bytes)
    });
    outputs.collect()
}

fn parts(tensors: &[(String, TensorType, Vec<u8>)]) -> Vec<TensorPart<'_>> {
    tensors
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_do_not_fit_their_task_are_refused() {
    let coordinator = start().await;
    let id = JobId(1);
    let context = coordinator.add_job(id, &ROWS, &unchecked("replica", 100, 64, 16)).await;
    let good = zeros(&context);
    type Change = fn(&mut Vec<(String, TensorType, Vec<u8>)>);
    let cases: [(Change, GoodbyeReason, &str); 5] = [
        (|tensors| drop(tensors.pop()), GoodbyeReason::BadFrame, "result.tensors"),
        (
            |tensors| tensors[0].0 = "other".into(),
            GoodbyeReason::BadFrame,
            "result.tensors[0].name",
        ),
        (|tensors| tensors.swap(0, 1), GoodbyeReason::BadFrame, "result.tensors[0].name"),
        (
            |tensors| {
                let last = tensors.last_mut().expect("one");
                last.1 = TensorType::new(DType::U8, [last.2.len() as u32]);
            },
            GoodbyeReason::BadFrame,
            "result.tensors[",
        ),
        // Right shapes, but not what was committed to.
        (|_| {}, GoodbyeReason::BrokenCommitment, "commitment"),
    ];
    for (number, (change, reason, field)) in cases.into_iter().enumerate() {
        let mut peer = leased(&coordinator, number as u8 + 1).await;
        peer.commit(ResultDigest([3; 32])).await;
        peer.asked().await;
        let mut tensors = good.clone();
        change(&mut tensors);
        peer.result(&parts(&tensors)).await;
        peer.socket.refused(reason, field).await;
    }

    // Twice committed, and a payload that nobody asked for.
    let mut peer = leased(&coordinator, 20).await;
    peer.result(&parts(&good)).await;
    peer.socket.refused(GoodbyeReason::OutOfTurn, "not asked for").await;
    let mut peer = leased(&coordinator, 21).await;
    peer.commit(ResultDigest([3; 32])).await;
    peer.commit(ResultDigest([4; 32])).await;
    peer.socket.refused(GoodbyeReason::OutOfTurn, "committed already").await;

    // A lease that belongs to another session.
    let victim = leased(&coordinator, 22).await;
    let mut thief = Socket::connect(coordinator.address).await;
    thief.open(&key(23), coordinator.runtime.kernel()).await;
    let (lease, digest) = (victim.task.lease, ResultDigest([1; 32]));
    thief
        .send(&FromContributor::Commit { lease, digest, elapsed_ms: 1, backend: Backend::Cpu })
        .await;
    thief.refused(GoodbyeReason::OutOfTurn, "lease").await;

    assert_eq!(coordinator.row(id).await.tasks, 0, "nothing of all this was accepted");
    coordinator.runtime.cancel_job(id).await.expect("told");
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_of_an_accepted_result_is_harmless() {
    let coordinator = start().await;
    let id = JobId(1);
    // One micro-batch a round: a result of zeros makes the round.
    let context = coordinator.add_job(id, &ROWS, &unchecked("replica", 100, 16, 16)).await;
    let mut peer = leased(&coordinator, 1).await;
    let tensors = zeros(&context);
    let digest = digest_of(peer.task.task, &context, &tensors);
    peer.commit(digest).await;
    peer.asked().await;
    for _ in 0..3 {
        peer.result(&parts(&tensors)).await;
    }
    peer.commit(digest).await;
    while coordinator.row(id).await.tasks < 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The session is still good: the next round's task comes over it.
    loop {
        match peer.socket.receive().await.0 {
            ToContributor::Task(task) => {
                assert_eq!(task.task.round, 1);
                break;
            }
            ToContributor::Goodbye { reason, detail, .. } => panic!("{reason:?}: {detail}"),
            _ => {}
        }
    }
    assert_eq!(coordinator.row(id).await.tasks, 1, "credited once");
}

fn digest_of(
    task: TaskId,
    context: &raven_coordinator::job::JobContext,
    tensors: &[(String, TensorType, Vec<u8>)],
) -> ResultDigest {
    let encodings = context.train.outputs.iter().map(|output| output.encoding);
    let views = tensors.iter().map(|(name, ty, data)| TensorView {
        name,
        dtype: ty.dtype,
        shape: &ty.shape,
        data,
    });
    result_digest(task, encodings.zip(views))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_contributor_delays_a_job_but_does_not_stop_it() {
    let coordinator = start().await;
    let id = JobId(1);
    coordinator.add_job(id, &ROWS, &unchecked("replica", 2, 64, 16)).await;
    // Holds a lease and never answers it, while its socket stays open.
    let frozen = leased(&coordinator, 1).await;
    let contributor = Contributor::start(coordinator.address, 2, Habits::default());
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    drop((contributor, frozen.socket));
}
