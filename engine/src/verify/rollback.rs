//! Undoing the rounds since a wrong result.

use crate::algorithm::Diverged;
use crate::dispatch::Notify;
use crate::effect::{Effect, SetBack};
use crate::ending::Ending;
use crate::engine::Engine;
use crate::event::{Outcome, PayloadId};
use crate::job::{Cause, JobState};
use crate::progress::Kind;
use crate::verify::ledger::{Beginning, CAUTION_MAX};
use raven_protocol::{BlobId, JobId, LeaseId, ResultOutcome};
use std::collections::{BTreeMap, BTreeSet};

impl Engine {
    /// Begins to undo `round` and what followed it. Nothing new is begun; the
    /// job goes back once what the shell computes for it is answered.
    pub(crate) fn undo_from(&mut self, id: JobId, round: u32) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if matches!(job.ending, Some(Ending::Saving(_))) {
            return;
        }
        let ledger = &mut job.ledger;
        ledger.back_to = Some(ledger.back_to.map_or(round, |before| before.min(round)));
        ledger.held = None;
        self.drop_stage(id);
        self.go_back(id);
    }

    /// Gives up the open stage: its leases end, its payloads are released.
    pub(crate) fn drop_stage(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let payloads: Vec<PayloadId> = job.stage_payloads();
        let Some(stage) = job.stage.take() else { return };
        let mut leases: Vec<LeaseId> = Vec::new();
        for task in stage.tasks.into_values() {
            let claims = task.trial.claims.iter();
            job.outcomes.extend(claims.map(|claim| (claim.into(), ResultOutcome::Withdrawn)));
            leases.extend(task.leases);
        }
        for lease in leases {
            self.end_lease(lease, Notify::Cancel(ResultOutcome::Withdrawn));
        }
        self.release_payloads(payloads);
        self.tell_stage(id, stage.round);
    }

    /// Goes back, if the job is to and nothing is being computed for it.
    pub(crate) fn go_back(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let Some(round) = job.ledger.back_to.filter(|_| job.ending.is_none()) else { return };
        // The referee reads states of the rounds that are undone, too.
        if job.effects > 0 {
            return;
        }
        job.ledger.back_to = None;
        let Some(beginning) = job.ledger.beginnings.get(&round).cloned() else {
            let reason = format!("round {round} is wrong and cannot be begun again");
            return self.begin_end(id, JobState::Failed { cause: Cause::Coordinator, reason });
        };
        self.restore(id, round, beginning);
        let Some(job) = self.world.jobs.get(&id) else { return };
        let draft = job.driver.draft(job.driver.job_state());
        self.persist_as(id, draft, Kind::RollBack { round });
    }

    /// Takes a job to the beginning of a round.
    fn restore(&mut self, id: JobId, round: u32, beginning: Beginning) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let mut unused: BTreeSet<BlobId> = job.ledger.states();
        unused.extend(job.driver.states());
        // The open round is paid for as far as it got: all of it is the operator's then.
        let begun = job.credits.iter().map(|credit| credit.task.round + 1).max().unwrap_or(0);
        job.tally.paid_until(job.driver.step().max(begun));
        job.accepted.retain(|accepted| accepted.task.round < round);
        job.unsaved = None;
        job.ledger.beginnings.retain(|&kept, _| kept <= round);
        let (kept, undone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut job.ledger.entries)
                .into_iter()
                .partition(|(task, _)| task.round < round);
        job.ledger.entries = kept;
        job.ledger.undone.extend(undone.into_values());
        job.ledger.rollbacks += 1;
        job.ledger.caution = (job.ledger.caution + 1).min(CAUTION_MAX);
        job.ledger.calm = 0;
        job.ledger.sampled = false;
        job.ledger.looked_at.clear();
        job.driver = beginning.driver;
        // What it waited to begin is undone, and a round that runs again is paid for.
        if job.paused.take().is_some() && !job.active {
            job.active = true;
            self.queue.retain(|&queued| queued != id);
        }
        let mut kept = job.ledger.states();
        kept.extend(job.driver.states());
        for &state in unused.difference(&kept) {
            self.out.push_back(Effect::ReleaseState { job: id, state });
        }
        self.stats.rollbacks += 1;
        self.out.push_back(Effect::RolledBack { job: id, round });
        self.tell_undone(id, round);
    }

    /// The loss diverges, and nothing that it comes from is open: the job goes back
    /// to its last checkpoint, or ends.
    pub(crate) fn set_back(&mut self, id: JobId, diverged: &Diverged) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let unused = match job.driver.set_back(diverged) {
            Ok(unused) => unused,
            Err(reason) => {
                return self.begin_end(id, JobState::Failed { cause: Cause::Diverged, reason });
            }
        };
        let round = job.driver.step();
        // What was done was right, and is paid for; what follows is other work.
        job.tally.not_paid_from(round);
        job.ledger.setbacks += 1;
        let set_back = SetBack {
            number: job.ledger.setbacks,
            diverged_at: diverged.step,
            loss: diverged.loss,
        };
        job.ledger.set_back = Some(set_back);
        let draft = job.driver.draft(job.driver.job_state());
        self.stats.setbacks += 1;
        if let Some(state) = unused {
            self.out.push_back(Effect::ReleaseState { job: id, state });
        }
        self.out.push_back(Effect::RolledBack { job: id, round });
        self.persist_as(id, draft, Kind::SetBack(set_back));
    }

    /// A job that ends while it is to go back does so first.
    pub(crate) fn go_back_for_good(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let Some(round) = job.ledger.back_to.take() else { return };
        let Some(beginning) = job.ledger.beginnings.get(&round).cloned() else { return };
        job.ledger.went_back_at_end = Some(round);
        self.restore(id, round, beginning);
    }

    /// The going back is durable: the round begins again.
    pub(crate) fn begin_again(&mut self, id: JobId, round: u32) {
        let Some(job) = self.world.jobs.get(&id) else { return };
        if let Some(beginning) = job.ledger.beginnings.get(&round) {
            let action = beginning.action.clone();
            self.act(id, action);
        }
    }

    /// Something of a job that goes back was answered: it is no longer wanted.
    pub(crate) fn answered_in_vain(&mut self, id: JobId, outcome: &Outcome) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        match *outcome {
            Outcome::Persisted => job.saved(),
            Outcome::StateReady { state } | Outcome::Stepped { state, .. } => {
                let is_kept =
                    job.ledger.states().contains(&state) || job.driver.states().contains(&state);
                if !is_kept {
                    self.out.push_back(Effect::ReleaseState { job: id, state });
                }
            }
            _ => {}
        }
        self.go_back(id);
    }
}
