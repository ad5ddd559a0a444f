//! Jobs: what was accepted of each, what its steps take, and what its records pay.

use super::Auditor;
use super::books::Books;
use super::lease::is_apart;
use crate::ids::{IdMap, IdSet};
use crate::shell::Shell;
use raven_engine::{
    Algorithm, Allowance, ContributorId, Credit, JobPlan, PayloadId, Placement, Proof, Record,
    TreePart, Verification,
};
use raven_protocol::{BlobId, JobId, Numerics, ResultDigest, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// What the model knows of a job.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelJob {
    /// Whether only processors may work on it.
    pub(super) strict: bool,
    /// Accepted work that is in no record, by task.
    pub(super) unpaid: BTreeMap<TaskId, Credit>,
    /// Accepted work in a record that is not durable.
    pub(super) paying: Vec<Credit>,
    /// By task and how often the job had gone back.
    pub(super) paid: IdMap<(TaskId, u32), Credit>,
    /// Micro-batches or parts that were accepted, by round and stage.
    pub(super) accepted: BTreeMap<(u32, u32), BTreeMap<u32, (u32, PayloadId)>>,
    /// States in durable records.
    pub(super) durable: BTreeSet<BlobId>,
    pub(super) steps: BTreeSet<u32>,
    /// Rows read in each epoch.
    pub(super) rows: BTreeMap<u32, IdSet<u32>>,
    /// Rounds that an earlier coordinator has paid for.
    pub(super) credited_rounds: u32,
    /// The step at which it was resumed.
    pub(super) resumed_at: u32,
    pub(super) saving: bool,
    pub(super) ended: bool,
    /// Whether results are checked before they are believed.
    pub(super) checked: bool,
    /// Whether it is of placement `master`.
    pub(super) shown_parts: bool,
    /// How often it went back.
    pub(super) attempt: u32,
    /// Who committed to what, by task.
    pub(super) commitments: IdMap<TaskId, Vec<(ContributorId, ResultDigest)>>,
    /// Whether a record was not taken: its credits come again.
    pub(super) failed_saves: bool,
    /// Executions in records, checked jobs only.
    pub(super) executions: IdSet<(TaskId, u32, ContributorId)>,
    /// Durably shown slices.
    pub(super) shown: BTreeMap<raven_engine::ContributorId, BTreeSet<u32>>,
    /// What its durable records say that it owes.
    pub(super) books: Books,
}

impl Auditor {
    pub(super) fn added(&mut self, plan: &JobPlan, allowance: Option<Allowance>) {
        let job = self.jobs.entry(plan.job).or_default();
        job.books.quoted(plan, allowance);
        job.strict = plan.numerics == Numerics::Strict;
        job.checked = plan.verification != Verification::None;
        let Algorithm::SyncSgd(sgd) = &plan.algorithm;
        job.shown_parts = matches!(sgd.placement, Placement::Master { .. });
    }

    /// A stage of an unchecked job combines what was accepted, and all of it.
    pub(super) fn combines(&self, job: JobId, round: u32, stage: u32, parts: &[PayloadId]) {
        let accepted = self.jobs[&job].accepted.get(&(round, stage));
        let accepted: Vec<PayloadId> =
            accepted.into_iter().flatten().map(|(_, &(_, payload))| payload).collect();
        assert_eq!(accepted, parts, "a stage combines what was accepted, in order");
    }

    /// The executor may begin with a result. Of a checked job this shows that it is accepted.
    pub(super) fn folds(
        &mut self,
        job: JobId,
        round: u32,
        total: u32,
        part: &TreePart,
        shell: &mut Shell,
    ) {
        assert!(self.payloads.contains(&part.payload), "a released payload is folded");
        let model = self.jobs.get_mut(&job).expect("a round is of a job");
        if model.checked {
            let accepted = model.accepted.entry((round, 0)).or_default();
            let apart = is_apart(accepted, part.start, part.count);
            assert!(apart, "{job} {round} {} was accepted twice", part.start);
            accepted.insert(part.start, (part.count, part.payload));
            self.accepted += 1;
        }
        let accepted = self.jobs[&job].accepted.get(&(round, 0));
        let found = accepted.and_then(|accepted| accepted.get(&part.start));
        assert_eq!(found, Some(&(part.count, part.payload)), "what is folded was accepted");
        let batch = shell.kernel.order(job, round).layout().micro_batches(round);
        assert_eq!(total, batch, "a round has one tree");
    }

    /// A step must cover its batch, and each epoch its rows.
    pub(super) fn step(
        &mut self,
        id: JobId,
        round: u32,
        step: u32,
        parts: &[raven_engine::TreePart],
        shell: &mut Shell,
    ) {
        assert_eq!(step, round + 1);
        let (plan, order) = shell.kernel.plan_and_order(id, round);
        let layout = *order.layout();
        let job = self.jobs.get_mut(&id).expect("a step is of a job");
        assert!(job.steps.insert(step), "step {step} of {id} is done twice");
        if let Placement::Replica { .. } = plan.placement {
            let accepted = &job.accepted[&(round, 0)];
            let taken = parts.iter().map(|part| (part.start, (part.count, part.payload)));
            assert!(
                taken.eq(accepted.iter().map(|(&s, &v)| (s, v))),
                "a step takes what was accepted"
            );
            let covered: u32 = parts.iter().map(|part| part.count).sum();
            assert_eq!(covered, layout.micro_batches(round), "a step covers its batch");
        }
        let epoch = layout.epoch_of(round);
        let rows = job.rows.entry(epoch).or_default();
        for micro in 0..layout.micro_batches(round) {
            for &row in order.real_rows(round, micro) {
                assert!(rows.insert(row), "row {row} is read twice in epoch {epoch}");
            }
        }
        let whole = epoch * layout.rounds_per_epoch >= job.resumed_at;
        if whole && (round + 1).is_multiple_of(layout.rounds_per_epoch) {
            let read = rows.len();
            assert_eq!(read, plan.train_rows as usize, "epoch {epoch} reads every row");
            job.rows.remove(&epoch);
        }
    }

    pub(super) fn persist(&mut self, record: &Record) {
        let job = self.jobs.get_mut(&record.job).expect("a record is of a job");
        assert!(!job.ended, "{} has a record after its end", record.job);
        assert!(!job.saving, "{} has two records under way", record.job);
        job.saving = true;
        if record.set_back.is_some() {
            // What is done again is done otherwise, and paid for.
            job.credited_rounds = job.credited_rounds.min(record.step);
        }
        assert_eq!(record.phase, record.state.phase());
        if job.checked {
            return checked_credits(job, record);
        }
        let unpaid = std::mem::take(&mut job.unpaid);
        let mut credits: BTreeMap<TaskId, Credit> = BTreeMap::new();
        for credit in &record.credits {
            assert!(credits.insert(credit.task, *credit).is_none(), "{} paid twice", credit.task);
        }
        assert_eq!(credits, unpaid, "a record pays what was accepted since the last, no more");
        job.paying = record.credits.clone();
        let people: BTreeSet<_> = credits.values().map(|credit| credit.contributor).collect();
        assert_eq!(record.contributors as usize, people.len());
    }

    /// A job begins `round` again: what was accepted of it and after it is forgotten.
    pub(super) fn rolled_back(&mut self, id: JobId, round: u32) {
        let job = self.jobs.get_mut(&id).expect("a rollback is of a job");
        job.accepted.retain(|&(accepted, _), _| accepted < round);
        job.steps.retain(|&step| step <= round);
        // The rows of its epoch are read again in part: which ones is not followed up.
        job.rows.clear();
        job.resumed_at = round + 1;
        job.attempt += 1;
    }
}

/// Every execution in a record was committed to, by its own contributor, of a
/// task that was accepted; three are paid at most, and none twice.
fn checked_credits(job: &mut ModelJob, record: &Record) {
    let mut by_task: BTreeMap<(TaskId, u32), u32> = BTreeMap::new();
    for credit in &record.credits {
        let paid = by_task.entry((credit.task, credit.attempt)).or_default();
        *paid += 1;
        assert!(*paid <= 3, "{} is paid {paid} times", credit.task);
        let commitments = job.commitments.get(&credit.task);
        let is_theirs =
            commitments.is_some_and(|c| c.contains(&(credit.contributor, credit.digest)));
        assert!(is_theirs, "{} is paid to who did not commit", credit.task);
        let execution = (credit.task, credit.attempt, credit.contributor);
        assert!(job.executions.insert(execution) || job.failed_saves, "{} twice", credit.task);
        assert_ne!(credit.proof, Proof::Unchecked);
    }
}
