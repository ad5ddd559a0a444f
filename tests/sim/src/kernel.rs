//! What tasks compute, with numbers for tensors.

use raven_engine::{Algorithm, EpochOrder, JobPlan, Layout, SyncSgd, Work, tree};
use raven_protocol::{BlobId, JobId, ResultDigest, TaskId};
use std::collections::BTreeMap;

/// A tensor's stand-in.
pub type Value = u64;

/// Combines two values; neither commutative nor associative.
pub fn mix(a: Value, b: Value) -> Value {
    let mixed = a.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ b.wrapping_add(0x2545_f491_4f6c_dd1d).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
}

fn hash(values: impl IntoIterator<Item = u64>) -> Value {
    values.into_iter().fold(0x5261_7665_6e00, mix)
}

fn bytes(value: Value) -> [u8; 32] {
    let mut out = [0; 32];
    for (i, chunk) in out.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(value, i as u64).to_le_bytes());
    }
    out
}

/// The state that holds `value`.
pub fn state_of(value: Value) -> BlobId {
    BlobId(bytes(value))
}

/// The commitment to `value` as the result of `task`.
pub fn digest_of(task: TaskId, value: Value) -> ResultDigest {
    let TaskId { job, round, stage, part } = task;
    ResultDigest(bytes(hash([job.0, round.into(), stage.into(), part.into(), value])))
}

fn state_value(state: BlobId) -> Value {
    u64::from_le_bytes(state.0[..8].try_into().expect("eight bytes"))
}

/// Whether a task is a matrix product, which probes check, as in the shell: of the
/// parts of [`crate::plans::Replica::master`] those of the weights' own stages, while the
/// others stand for convolutions.
pub fn is_product(work: &Work) -> bool {
    matches!(work, Work::Part { stage, .. } if stage % 2 == 1)
}

/// Computes tasks and the shell's own steps, as one kernel everywhere.
#[derive(Debug, Default)]
pub struct Kernel {
    /// What each job is, with its sizes if it has any.
    plans: BTreeMap<JobId, (JobPlan, Option<Layout>)>,
    orders: BTreeMap<(JobId, u32), EpochOrder>,
    /// Master placement: the value that the round's stages hand on.
    pub rounds: BTreeMap<JobId, Value>,
}

impl Kernel {
    pub fn add(&mut self, plan: JobPlan) {
        let Algorithm::SyncSgd(sgd) = &plan.algorithm;
        let layout = Layout::of(sgd).ok();
        self.plans.insert(plan.job, (plan, layout));
    }

    pub fn plan(&self, job: JobId) -> &SyncSgd {
        let Algorithm::SyncSgd(plan) = &self.plans[&job].0.algorithm;
        plan
    }

    /// The order of the epoch of `round`, built once.
    pub fn order(&mut self, job: JobId, round: u32) -> &EpochOrder {
        self.plan_and_order(job, round).1
    }

    pub fn plan_and_order(&mut self, job: JobId, round: u32) -> (&SyncSgd, &EpochOrder) {
        let (plan, layout) = &self.plans[&job];
        let Algorithm::SyncSgd(sgd) = &plan.algorithm;
        let epoch = layout.expect("laid out").epoch_of(round);
        let order = self
            .orders
            .entry((job, epoch))
            .or_insert_with(|| EpochOrder::new(sgd, plan.seed, epoch).expect("laid out"));
        (sgd, order)
    }

    /// The result of a task.
    pub fn run(&mut self, task: TaskId, work: &Work) -> Value {
        match *work {
            Work::Replica { state, start, count } => {
                let state = state_value(state);
                let (plan, order) = self.plan_and_order(task.job, task.round);
                let runs = (start..start + count).map(|micro| {
                    let rows = order.real_rows(task.round, micro);
                    let padding = plan.micro_batch as usize - rows.len();
                    let rows = rows.iter().map(|&row| u64::from(row));
                    let rows = rows.chain(std::iter::repeat_n(u64::MAX, padding));
                    (micro - start, 1, hash([state, u64::from(micro)].into_iter().chain(rows)))
                });
                tree::combine(count, runs, mix).expect("a run covers itself")
            }
            Work::Part { state, stage, part } => {
                let operand = self.rounds.get(&task.job).copied().unwrap_or(0);
                hash([state_value(state), stage.into(), part.into(), operand])
            }
        }
    }

    /// The first state.
    pub fn init(&self, job: JobId) -> Value {
        hash([self.plans[&job].0.seed.0])
    }

    /// A local stage.
    pub fn local(&mut self, job: JobId, round: u32, stage: u32, state: BlobId) {
        let before = if stage == 0 { 0 } else { self.rounds.get(&job).copied().unwrap_or(0) };
        let value = hash([before, round.into(), stage.into(), state_value(state)]);
        self.rounds.insert(job, value);
    }

    /// A pushed stage's parts, in order.
    pub fn join(&mut self, job: JobId, round: u32, stage: u32, parts: &[Value]) {
        let before = self.rounds.get(&job).copied().unwrap_or(0);
        let joined = hash(parts.iter().copied());
        self.rounds.insert(job, hash([before, round.into(), stage.into(), joined]));
    }

    /// An optimizer step.
    pub fn step(&self, state: BlobId, gradient: Value, learning_rate: f32, step: u32) -> Value {
        hash([state_value(state), gradient, learning_rate.to_bits().into(), step.into()])
    }

    /// The gradient of a master round.
    pub fn round_value(&self, job: JobId) -> Value {
        self.rounds.get(&job).copied().unwrap_or(0)
    }
}
