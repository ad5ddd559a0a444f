//! Before a checkpoint, and before more rounds are unsettled than may be, what
//! was accepted without proof is sampled once more.

use crate::active::Job;
use crate::algorithm::{Action, Diverged, Draft};
use crate::config::EngineConfig;
use crate::effect::Effect;
use crate::ending::Ending;
use crate::engine::Engine;
use crate::progress::Kind;
use crate::terms::Paused;
use crate::verify::ledger::{Beginning, Held};
use crate::verify::{Identity, Verification};
use raven_protocol::{BlobId, JobId, Numerics};
use std::collections::BTreeSet;

/// What the shell may keep of a job's projections, besides those of one round: some
/// kilobytes for each result of a GPU, more where a model has many parameters.
const PROJECTED_BYTES_MAX: u64 = 64 << 20;
/// From which on the last rounds before they are settled for that have begun.
const PROJECTED_BYTES_LAST: u64 = PROJECTED_BYTES_MAX / 4 * 3;

impl Engine {
    /// Whether `draft` has to wait until all before it is settled. It is kept then.
    pub(crate) fn holds_save(&mut self, id: JobId, draft: &Draft) -> bool {
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        let is_open = !job.ledger.entries.is_empty() || job.ledger.cases > 0;
        if !draft.checkpoint || job.ending.is_some() || !is_open {
            return false;
        }
        job.ledger.held = Some(Held::Save(draft.clone()));
        self.settle(id);
        true
    }

    /// Goes back to the last checkpoint once all before is settled: what diverges may
    /// be somebody's false result, which is undone alone.
    pub(crate) fn hold_set_back(&mut self, id: JobId, diverged: Diverged) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        job.ledger.held = Some(Held::SetBack(diverged));
        self.settle(id);
    }

    /// Pauses before `round` once all before it is settled: what is kept then is right.
    pub(crate) fn hold_pause(&mut self, id: JobId, round: u32, paused: Paused) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        job.ledger.held = Some(Held::Pause(round, paused));
        self.settle(id);
    }

    /// Whether the round that `action` begins has to wait until those before it
    /// are settled. What is needed to begin it again is noted otherwise.
    pub(crate) fn holds_round(&mut self, id: JobId, action: &Action) -> bool {
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        let (Some((round, state)), false) =
            (action.begins_round(), job.plan.verification == Verification::None)
        else {
            return false;
        };
        let rounds_max = unsettled_max(&self.world.config, job);
        let is_full = job.ledger.beginnings.len() >= rounds_max
            || job.ledger.projected_bytes >= PROJECTED_BYTES_MAX;
        if is_full && !job.ledger.beginnings.contains_key(&round) {
            job.ledger.held = Some(Held::Round(action.clone()));
            self.settle(id);
            return true;
        }
        let (driver, action) = (job.driver.clone(), action.clone());
        job.ledger.beginnings.entry(round).or_insert(Beginning { driver, state, action });
        false
    }

    /// Goes on with settling what a held checkpoint or round waits for.
    pub(crate) fn settle(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let ledger = &mut job.ledger;
        if ledger.held.is_none() || ledger.cases > 0 || ledger.back_to.is_some() {
            return;
        }
        if std::mem::replace(&mut ledger.sampled, true) {
            return self.settled(id);
        }
        let tasks = ledger.to_audit();
        if tasks.is_empty() {
            return self.settled(id);
        }
        for task in tasks {
            self.recheck(id, task);
        }
    }

    /// Samples what a job that ends has accepted, once: its end makes that its
    /// contributors' own. Lies that are found are void, and what they led to is undone.
    pub(crate) fn sample_at_end(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if job.effects > 0 || !matches!(job.ending, Some(Ending::Draining(_))) {
            return;
        }
        if std::mem::replace(&mut job.ledger.sampled_at_end, true) {
            return;
        }
        if let Some(state) = job.driver.state().filter(|_| job.plan.numerics == Numerics::Strict) {
            job.ledger.take_up_earlier(state, &job.sgd.placement);
        }
        for task in job.ledger.to_audit() {
            self.recheck(id, task);
        }
    }

    /// Nothing that was accepted can be undone any more.
    fn settled(&mut self, id: JobId) {
        let is_refereed =
            self.pending.values().any(|open| open.job == id && open.kind == Kind::Referee);
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if is_refereed && matches!(job.ledger.held, Some(Held::SetBack(_))) {
            // The referee reads the state that is let go of. Its answer leads here.
            return;
        }
        let held = job.ledger.held.take();
        job.ledger.sampled = false;
        job.ledger.entries.clear();
        job.ledger.undone.clear();
        job.ledger.looked_at.clear();
        job.ledger.projected_bytes = 0;
        // Each settlement has the referee compute one result of everybody. To go on with
        // short ones for good would cost more than liars who are gone; but where one was,
        // others may begin soon, so they go on for as long as a lie can cost.
        let rounds_max = self.world.config.unsettled_rounds_max(job.sgd.weights_bytes);
        job.ledger.calm += job.ledger.beginnings.len();
        if job.ledger.calm >= rounds_max {
            job.ledger.calm = 0;
            job.ledger.caution = job.ledger.caution.saturating_sub(1);
        }
        self.out.push_back(Effect::Settled { job: id });
        let accepted = std::mem::take(&mut job.ledger.accepted);
        let states = job.ledger.states();
        let is_next = |round: u32| matches!(held, Some(Held::Pause(next, _)) if next == round);
        job.ledger.beginnings.retain(|&round, _| is_next(round));
        let mut current: BTreeSet<BlobId> = job.driver.states().into_iter().collect();
        current.extend(job.ledger.states());
        for &state in states.difference(&current) {
            self.out.push_back(Effect::ReleaseState { job: id, state });
        }
        self.count_paid(accepted);
        let open: BTreeSet<Identity> = self
            .world
            .jobs
            .values()
            .flat_map(|job| job.ledger.entries.values())
            .flat_map(|entry| entry.members.iter().map(|member| member.who.identity))
            .collect();
        for contributor in self.world.trust.prune(|identity| open.contains(identity)) {
            self.world.watch.trust_changed(&contributor);
        }
        match held {
            Some(Held::Save(draft)) => self.persist(id, draft),
            Some(Held::Round(action)) => self.act(id, action),
            Some(Held::SetBack(diverged)) => self.set_back(id, &diverged),
            Some(Held::Pause(_, paused)) => self.pause(id, paused),
            None => {}
        }
    }
}

/// Rounds of a job that may be unsettled at once.
fn unsettled_max(config: &EngineConfig, job: &Job) -> usize {
    // Where somebody lies again and again, less is put at stake.
    let rounds_max = config.unsettled_rounds_max(job.sgd.weights_bytes);
    (rounds_max >> job.ledger.caution).max(1)
}

/// Rounds before a settlement in which one part of each identity is looked at: not
/// everybody has one in each.
const LAST_ROUNDS: usize = 3;

/// Whether the rounds are settled soon after the one that is going on.
pub(super) fn is_nearly_settled(config: &EngineConfig, job: &Job) -> bool {
    let (begun, checkpoint) = (job.ledger.beginnings.len(), job.driver.rounds_to_checkpoint());
    checkpoint as usize <= LAST_ROUNDS
        || begun + LAST_ROUNDS > unsettled_max(config, job)
        || job.ledger.projected_bytes >= PROJECTED_BYTES_LAST
}

impl Action {
    /// The round that it begins, and from which state.
    fn begins_round(&self) -> Option<(u32, BlobId)> {
        match *self {
            Action::OpenRuns { round, state }
            | Action::OpenParts { round, stage: 0, state }
            | Action::RunLocal { round, stage: 0, state } => Some((round, state)),
            _ => None,
        }
    }
}
