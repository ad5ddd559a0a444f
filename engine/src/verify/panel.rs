//! Comparison of results that honest contributors do not agree on bit for bit.
//!
//! Whoever has committed to a result of a GPU is asked at once for random
//! projections of it, under a key that is drawn for this commitment: whether anybody
//! else computes the task, nobody can tell from that. With its answer the result is
//! as good as in hand, for whatever its contributor learns afterwards. Of those who
//! answered one shows its result. The shell says whether that has the projections
//! that its contributor answered, and whether it is within the bounds of what others
//! did. Nobody but an accomplice can have known their keys when it was committed to.
//! Where all agree it is taken, where any do not the referee decides.

use crate::active::Job;
use crate::effect::Outbound;
use crate::engine::Engine;
use crate::event::{Millis, PayloadId};
use crate::lease::{Lease, LeaseState};
use crate::stage::Task;
use crate::timer::Timer;
use crate::verify::outcome::Holder;
use crate::verify::trial::{Claim, Trial, Who};
use crate::verify::{Purpose, Verification, draw};
use crate::world::World;
use raven_protocol::{JobId, LeaseId, Numerics, ResultOutcome, Seed, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// Projections of each output. Of differences ten times what is accepted four in a
/// thousand escape at most, whatever they are (`raven_proof::normwise::accepted_wrongly`);
/// a contributor adds up its result as many times.
pub const PROBES: u32 = 32;

/// The shortest time for an answer: a page may be at a long step of another task.
const PROJECT_MS_MIN: Millis = 4_000;
/// The longest: adding up is nothing beside computing, and others wait for it.
const PROJECT_MS_MAX: Millis = 20_000;
/// How many times its estimate an answer may take.
const PROJECT_FACTOR: f64 = 4.0;

/// What was answered of the results of a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Projections, which the shell holds.
    answers: BTreeMap<LeaseId, PayloadId>,
    /// Whether a result that was shown does not agree with one of them.
    pub(crate) differ: bool,
}

impl Panel {
    /// Whether somebody answered under a lease.
    pub(crate) fn has_answer(&self, lease: LeaseId) -> bool {
        self.answers.contains_key(&lease)
    }

    /// What it holds of the shell's memory.
    pub(crate) fn projections(&self) -> impl Iterator<Item = PayloadId> + '_ {
        self.answers.values().copied()
    }
}

impl Trial {
    /// Takes out what was answered under leases whose commitment counts no more.
    #[must_use]
    pub(crate) fn unclaimed_answers(&mut self) -> Vec<PayloadId> {
        let claimed: BTreeSet<LeaseId> = self.claims.iter().map(|claim| claim.lease).collect();
        let answers = &mut self.panel.answers;
        answers.extract_if(.., |lease, _| !claimed.contains(lease)).map(|(_, id)| id).collect()
    }

    /// Whether a claim can be compared now: of a processor's its bits are the shown
    /// ones, of a GPU's there are projections.
    pub(crate) fn is_comparable(&self, claim: &Claim) -> bool {
        match claim.who.exact || claim.who.operator {
            true => self.payloads.contains_key(&claim.digest),
            false => self.panel.has_answer(claim.lease),
        }
    }
}

impl World {
    fn state(&self, claim: &Claim) -> Option<LeaseState> {
        self.leases.get(claim.lease).map(|lease| lease.state)
    }

    /// Whether projections of a committed result are awaited.
    pub(crate) fn is_projecting(&self, claim: &Claim) -> bool {
        matches!(self.state(claim), Some(LeaseState::Projecting { .. }))
    }

    /// Whether a committed result was asked for, and is not late.
    pub(crate) fn is_revealing(&self, claim: &Claim) -> bool {
        matches!(self.state(claim), Some(LeaseState::Revealing { .. }))
            && !self.overdue.contains(&claim.lease)
    }

    /// Whether something can be said of a committed result, or may be yet.
    pub(crate) fn is_heard(&self, trial: &Trial, claim: &Claim) -> bool {
        trial.payloads.contains_key(&claim.digest)
            || trial.panel.has_answer(claim.lease)
            || self.leases.get(claim.lease).is_some()
    }

    /// Whether what was asked of those who committed to results of a GPU's task is on
    /// its way: projections of each, and one result.
    pub(crate) fn is_hearing(&self, trial: &Trial) -> bool {
        trial.is_inexact()
            && (trial.claims.iter().any(|claim| self.is_projecting(claim))
                || trial.payloads.is_empty()
                    && trial.claims.iter().any(|claim| self.is_revealing(claim)))
    }

    /// Milliseconds that projections of a result take to come, at most.
    fn project_ms(&self, lease: &Lease) -> Millis {
        let Some(session) = self.sessions.get(&lease.session) else { return PROJECT_MS_MIN };
        // It reads all of its result so many times, four bytes an element, behind
        // whatever it is sending.
        let flops = (lease.result_bytes / 4).saturating_mul(2 * u64::from(PROBES));
        let ms =
            session.speed.task_ms(flops) + session.link.round_trip_ms() + self.reveal_ms(lease);
        ((ms * PROJECT_FACTOR) as Millis).clamp(PROJECT_MS_MIN, PROJECT_MS_MAX)
    }
}

/// Whether whoever commits to a result of a job is asked for projections of it.
fn projects(job: &Job, who: &Who) -> bool {
    job.plan.numerics == Numerics::Relaxed
        && job.plan.verification != Verification::None
        && !who.exact
        && !who.operator
}

impl Engine {
    /// Asks whoever has just committed for projections, if its bits say nothing.
    pub(crate) fn ask_to_project(&mut self, id: JobId, claim: &Claim) {
        let Some(job) = self.world.jobs.get(&id) else { return };
        if !projects(job, &claim.who) {
            return;
        }
        let Some(lease) = self.world.leases.get(claim.lease) else { return };
        let wait_ms = self.world.project_ms(lease);
        let key = self.probe_key(lease.task);
        if let Some(lease) = self.world.leases.get_mut(claim.lease) {
            lease.state = LeaseState::Projecting { digest: claim.digest };
        }
        self.keep_until(claim.lease, self.now + wait_ms);
        self.send(claim.session, Outbound::Project { lease: claim.lease, key, probes: PROBES });
    }

    /// A key that was never used and that nobody can foresee.
    fn probe_key(&mut self, task: raven_protocol::TaskId) -> Seed {
        let number = self.keys_drawn;
        self.keys_drawn += 1;
        let half =
            |half| u64::from(draw(&self.world.config, task, Purpose::Probe, number << 1 | half));
        Seed(half(0) << 32 | half(1))
    }

    fn keep_until(&mut self, id: LeaseId, expires: Millis) {
        if let Some(lease) = self.world.leases.get_mut(id) {
            lease.expires = expires;
            self.timers.set(Timer::LeaseExpiry(id), expires);
        }
    }

    /// Somebody answered; `agrees` says whether with what was shown of the task.
    pub(crate) fn projected(
        &mut self,
        session: SessionId,
        id: LeaseId,
        projection: PayloadId,
        bytes: u64,
        agrees: bool,
    ) {
        self.payloads.insert(projection);
        if !self.may_answer(session, id) {
            return self.release_payloads(vec![projection]);
        }
        let Some(lease) = self.world.leases.get_mut(id) else { return };
        let LeaseState::Projecting { digest } = lease.state else {
            self.stats.ignored.out_of_turn += 1;
            return self.release_payloads(vec![projection]);
        };
        lease.state = LeaseState::Committed { digest };
        let (job, part) = (lease.job, lease.task.part);
        lease.arrived = None;
        self.keep_until(id, self.now + 2 * self.world.config.lease_ms_max);
        if let Some(job) = self.world.jobs.get_mut(&job) {
            job.ledger.projected_bytes = job.ledger.projected_bytes.saturating_add(bytes);
        }
        let task = self.stage_mut(job).and_then(|stage| stage.tasks.get_mut(&part));
        let trial = task.map(|task| &mut task.trial);
        match trial.filter(|trial| trial.claims.iter().any(|claim| claim.lease == id)) {
            Some(trial) => {
                trial.panel.answers.insert(id, projection);
                trial.panel.differ |= !agrees;
            }
            None => self.release_payloads(vec![projection]),
        }
        self.consider(job, part);
    }

    /// A payload is not what was projected: as with one that is not what was committed to.
    pub(crate) fn misprojected(&mut self, session: SessionId, id: LeaseId) {
        if !self.may_answer(session, id) {
            return;
        }
        match self.world.leases.get(id).map(|lease| lease.state) {
            Some(LeaseState::Revealing { .. }) => self.broke_commitment(session, id),
            _ => self.stats.ignored.out_of_turn += 1,
        }
    }

    /// Puts a trial whose results do not agree to the referee, once all who were asked
    /// have answered; false where they agree.
    pub(crate) fn is_split(&mut self, id: JobId, part: u32) -> bool {
        let Some(task) = self.task(id, part) else { return false };
        if !task.trial.panel.differ {
            return false;
        }
        if !self.world.is_hearing(&task.trial) {
            self.stats.panels += 1;
            self.stats.panels_split += 1;
            self.ask_referee(id, part);
        }
        self.note_partners(id, part);
        true
    }

    /// Drops commitments of which nothing can be known any more: their contributor has
    /// gone, or did not answer in time. A processor's bits still say something, as
    /// long as bits are what is compared.
    pub(crate) fn drop_mute(&mut self, id: JobId, part: u32) {
        if self.is_unchecked(id) {
            return;
        }
        let Some(&Task { id: task, ref trial, .. }) = self.task(id, part) else { return };
        let has_shown = |claim: &Claim| {
            let mut same = trial.claims.iter().filter(|other| other.digest == claim.digest);
            same.any(|other| self.world.is_heard(trial, other))
        };
        let is_mute = |claim: &&Claim| match claim.who.exact && !claim.who.operator {
            true => trial.is_inexact() && !has_shown(claim),
            false => !self.world.is_heard(trial, claim),
        };
        let mute: BTreeSet<Holder> =
            trial.claims.iter().filter(is_mute).map(Holder::from).collect();
        if mute.is_empty() {
            return;
        }
        let Some(stage) = self.stage_mut(id) else { return };
        if let Some(task) = stage.tasks.get_mut(&part) {
            task.trial.claims.retain(|claim| !mute.contains(&Holder::from(claim)));
        }
        stage.put_back(part);
        for holder in mute {
            self.comes_to(task, holder, ResultOutcome::Late);
        }
    }
}
