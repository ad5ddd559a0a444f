//! Leases: what each is of, and which may live beside each other.

use super::Auditor;
use super::outcome::Given;
use crate::shell::Shell;
use raven_engine::{Credit, Payer, PayloadId, Placement, Proof, StagePlan, Work, rates, tree};
use raven_protocol::{
    Backend, BlobId, GraphId, JobId, LeaseId, RefuseReason, ResultDigest, SessionId, TaskId,
};
use std::collections::BTreeMap;

/// What the model knows of a lease.
#[derive(Clone, Debug)]
pub(super) struct ModelLease {
    pub(super) session: SessionId,
    pub(super) task: TaskId,
    pub(super) work: Work,
    pub(super) flops: u64,
    pub(super) blobs: Vec<BlobId>,
    pub(super) committed: Option<ResultDigest>,
    pub(super) revealing: bool,
}

/// Live leases of a stage of a round.
pub(super) type StageKey = (JobId, u32, u32);

impl Auditor {
    pub(super) fn leased(
        &mut self,
        session: SessionId,
        id: LeaseId,
        task: TaskId,
        flops: u64,
        work: &Work,
        shell: &mut Shell,
    ) {
        let before = self.given.insert(id, Given::default());
        assert!(before.is_none(), "{id} was given out before");
        assert!(!self.jobs[&task.job].ended, "{} has ended", task.job);
        let needs = needs_of(task, work, shell);
        assert_eq!(flops, needs.flops, "{task} states its cost");
        let model = self.sessions.get_mut(&session).expect("checked by the caller");
        let on_gpu = model.profile.numeric.backend() == Backend::Gpu;
        assert!(!on_gpu || !self.jobs[&task.job].strict, "{task} is strict, {session} a GPU");
        assert!(model.graphs.contains(&needs.graph), "{task} is sent before its graph");
        if let Some(weights) = needs.weights {
            assert!(model.blobs.contains_key(&weights), "{task} is sent before its weights");
        }
        for &(blob, bytes) in &needs.shards {
            model.hold(blob, bytes);
        }
        let held = model.held;
        let memory = model.profile.memory_bytes;
        assert!(held + needs.bytes <= memory, "{session} holds {held} + {} bytes", needs.bytes);
        let contributor = model.profile.contributor;
        let workers = u64::from(model.profile.workers);
        let operator = model.profile.operator;
        if let Some((slice, held_max)) = needs.slice.filter(|_| !operator) {
            let job = self.jobs.get_mut(&task.job).expect("a lease is of a job");
            let shown = job.shown.entry(contributor).or_default();
            assert!(shown.contains(&slice), "{task} is sent before it is durable who sees it");
            assert!(shown.len() <= held_max as usize, "{contributor:?} was shown {shown:?}");
        }
        model.leases.insert(id);
        model.open += 1;
        let (open, open_max) = (model.open, workers * u64::from(self.config.leases_per_worker));
        assert!(open <= open_max.max(1), "{session} has {open} leases in hand of {open_max}");
        self.takes_place(task, extent(work));
        let mut blobs: Vec<BlobId> = needs.shards.iter().map(|&(blob, _)| blob).collect();
        blobs.extend(needs.weights);
        self.live.insert(
            id,
            ModelLease {
                session,
                task,
                work: work.clone(),
                flops,
                blobs,
                committed: None,
                revealing: false,
            },
        );
    }

    /// A lease is of the same as others of its task, or overlaps none and nothing accepted.
    fn takes_place(&mut self, task: TaskId, (start, count): (u32, u32)) {
        let extents = self.extents.entry(stage_of(task)).or_default();
        match extents.get_mut(&start) {
            Some((length, leases)) => {
                assert_eq!(*length, count, "{task} overlaps another of the same start");
                *leases += 1;
                let wanted = if self.jobs[&task.job].checked { 3 } else { 1 };
                let max = wanted + self.config.copies_max - 1;
                assert!(*leases <= max, "{task} has {leases} leases");
            }
            None => {
                assert!(is_apart(extents, start, count), "{task} overlaps another");
                extents.insert(start, (count, 1));
            }
        }
        let accepted = self.jobs[&task.job].accepted.get(&(task.round, task.stage));
        let is_new = accepted.is_none_or(|accepted| is_apart(accepted, start, count));
        assert!(is_new, "{task} was accepted before");
    }

    pub(super) fn committed(&mut self, session: SessionId, id: LeaseId, digest: ResultDigest) {
        let lease = self.live.get_mut(&id);
        let Some(lease) = lease.filter(|lease| lease.session == session) else { return };
        self.given.get_mut(&id).expect("a live lease was given").committed = true;
        let model = self.sessions.get_mut(&session).expect("its lease is live");
        model.open -= u64::from(lease.committed.is_none());
        let digest = *lease.committed.get_or_insert(digest);
        let contributor = model.profile.contributor;
        let job = self.jobs.get_mut(&lease.task.job).expect("a lease is of a job");
        let commitments = job.commitments.entry(lease.task).or_default();
        if !commitments.contains(&(contributor, digest)) {
            commitments.push((contributor, digest));
        }
    }

    pub(super) fn revealed(
        &mut self,
        session: SessionId,
        id: LeaseId,
        digest: ResultDigest,
        pay: PayloadId,
    ) {
        let Some(lease) = self.live.get(&id).filter(|lease| lease.session == session) else {
            return;
        };
        if !lease.revealing {
            return;
        }
        if lease.committed != Some(digest) {
            // The engine must close the session; `close` happens at its effect.
            return;
        }
        let lease = self.ends(id).expect("it is live");
        if self.jobs[&lease.task.job].checked {
            // When it is believed shows where it is used.
            return;
        }
        let profile = &self.sessions[&session].profile;
        let was_paid = lease.task.round < self.jobs[&lease.task.job].credited_rounds;
        let credit = Credit {
            task: lease.task,
            contributor: profile.contributor,
            session,
            site: profile.site,
            beneficiary: profile.beneficiary,
            flops: lease.flops,
            rate: rates::rate(profile.device),
            backend: profile.numeric.backend(),
            digest,
            proof: Proof::Unchecked,
            attempt: self.jobs[&lease.task.job].attempt,
            payer: if was_paid { Payer::Operator } else { Payer::Job },
        };
        let job = self.jobs.get_mut(&lease.task.job).expect("a lease is of a job");
        let (start, count) = extent(&lease.work);
        let accepted = job.accepted.entry((lease.task.round, lease.task.stage)).or_default();
        assert!(is_apart(accepted, start, count), "{} was accepted twice", lease.task);
        accepted.insert(start, (count, pay));
        assert!(job.unpaid.insert(lease.task, credit).is_none(), "{} twice", lease.task);
        let is_paid = job.paid.contains_key(&(lease.task, job.attempt));
        assert!(!is_paid, "{} was paid before", lease.task);
        self.expected = Some(id);
    }

    pub(super) fn refused(&mut self, session: SessionId, id: LeaseId, reason: RefuseReason) {
        if self.live.get(&id).is_none_or(|live| live.session != session) {
            return;
        }
        let live = self.ends(id).expect("it is live");
        if let (RefuseReason::Missing, Some(model)) = (reason, self.sessions.get_mut(&session)) {
            // What a session says it lost is sent again.
            for blob in &live.blobs {
                model.held -= model.blobs.remove(blob).unwrap_or(0);
            }
        }
    }

    /// A lease is live no more.
    pub(super) fn ends(&mut self, id: LeaseId) -> Option<ModelLease> {
        let lease = self.live.remove(&id)?;
        let model = self.sessions.get_mut(&lease.session).expect("a live lease has a session");
        model.leases.remove(&id);
        model.open -= u64::from(lease.committed.is_none());
        let key = stage_of(lease.task);
        let stage = self.extents.get_mut(&key).expect("a live lease has an extent");
        let (start, _) = extent(&lease.work);
        let (_, leases) = stage.get_mut(&start).expect("a live lease has an extent");
        *leases -= 1;
        if *leases == 0 {
            stage.remove(&start);
        }
        if stage.is_empty() {
            self.extents.remove(&key);
        }
        Some(lease)
    }
}

/// What a task needs, by the plan.
struct Needs {
    graph: GraphId,
    flops: u64,
    bytes: u64,
    weights: Option<BlobId>,
    shards: Vec<(BlobId, u64)>,
    slice: Option<(u32, u32)>,
}

fn needs_of(task: TaskId, work: &Work, shell: &mut Shell) -> Needs {
    let (plan, order) = shell.kernel.plan_and_order(task.job, task.round);
    match (&plan.placement, work) {
        (
            Placement::Replica { graph, flops, bytes_peak, .. },
            &Work::Replica { state, start, count },
        ) => {
            let total = order.layout().micro_batches(task.round);
            assert!(tree::is_node(start, count, total), "{task}: {start}+{count} of {total}");
            let group = (total.next_power_of_two() / plan.groups).max(1);
            let is_within = start / group == (start + count - 1) / group;
            assert!(is_within, "{task}: {start}+{count} crosses groups of {group}");
            let shards =
                (start..start + count).flat_map(|micro| order.shards_of(task.round, micro));
            let mut shards: Vec<u32> = shards.collect();
            shards.sort_unstable();
            shards.dedup();
            let shards = shards.into_iter().map(|shard| plan.shards[shard as usize]);
            Needs {
                graph: *graph,
                flops: flops * u64::from(count),
                bytes: *bytes_peak,
                weights: Some(state),
                shards: shards.map(|shard| (shard.blob, shard.bytes)).collect(),
                slice: None,
            }
        }
        (Placement::Master { stages, slices_held_max, .. }, &Work::Part { stage, part, .. }) => {
            let StagePlan::Pushed { parts } = &stages[stage as usize] else {
                panic!("{task} is of a local stage");
            };
            let part = &parts[part as usize];
            Needs {
                graph: part.graph,
                flops: part.flops,
                bytes: part.bytes_peak + part.operand_bytes,
                weights: None,
                shards: Vec::new(),
                slice: part.slice.map(|slice| (slice, *slices_held_max)),
            }
        }
        _ => panic!("{task} is of another placement"),
    }
}

pub(super) fn stage_of(task: TaskId) -> StageKey {
    (task.job, task.round, task.stage)
}

/// Whether `start..start + count` overlaps none of `taken`, which do not overlap
/// each other: lengths by start.
pub(super) fn is_apart<T>(taken: &BTreeMap<u32, (u32, T)>, start: u32, count: u32) -> bool {
    let last = taken.range(..start + count).next_back();
    last.is_none_or(|(&other, &(length, _))| other + length <= start)
}

pub(super) fn extent(work: &Work) -> (u32, u32) {
    match *work {
        Work::Replica { start, count, .. } => (start, count),
        Work::Part { part, .. } => (part, 1),
    }
}
