//! Comparison of results that honest contributors do not agree on bit for bit.
//!
//! Those who have committed form a panel. They are asked for random projections
//! under a key that was drawn after the last of them committed, so that nobody can
//! choose a result by the key; the shell says whether these agree, each with each.
//! Where all do, one of them shows its result, which must have the projections
//! that it answered. Where any two do not, all show theirs and the referee decides.

use crate::active::Job;
use crate::effect::{Outbound, Proof};
use crate::engine::Engine;
use crate::event::{Millis, PayloadId};
use crate::lease::LeaseState;
use crate::stage::Task;
use crate::timer::Timer;
use crate::verify::outcome::Holder;
use crate::verify::trial::{Claim, Revealed, Trial, Who};
use crate::verify::trust::Identity;
use crate::verify::verdict::Accepting;
use crate::verify::{Purpose, Verification, draw};
use crate::world::World;
use raven_protocol::{JobId, LeaseId, Numerics, ResultOutcome, Seed, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// Projections of each output. Of differences ten times what is accepted four in a
/// thousand escape at most, whatever they are (`raven_proof::normwise::accepted_wrongly`);
/// a contributor adds up its result as many times.
pub const PROBES: u32 = 32;

/// The shortest time for an answer: a page may be at a long step of another task.
const PROJECT_MS_MIN: Millis = 10_000;

/// Contributors whose results are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    leases: BTreeSet<LeaseId>,
    /// What they answered, which the shell holds.
    answers: BTreeMap<LeaseId, PayloadId>,
    /// Whether any two of the answers do not agree.
    differ: bool,
}

/// What a panel came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Awaited,
    Agree,
    Differ,
}

impl Panel {
    fn of(claims: &[Claim]) -> Self {
        let leases = claims.iter().map(|claim| claim.lease).collect();
        Panel { leases, answers: BTreeMap::new(), differ: false }
    }

    fn finding(&self) -> Finding {
        match self.differ {
            _ if self.answers.len() < self.leases.len() => Finding::Awaited,
            true => Finding::Differ,
            false => Finding::Agree,
        }
    }

    /// Whether somebody answered under a lease.
    pub(crate) fn has_answer(&self, lease: LeaseId) -> bool {
        self.answers.contains_key(&lease)
    }

    /// What it holds of the shell's memory.
    pub(crate) fn projections(&self) -> impl Iterator<Item = PayloadId> + '_ {
        self.answers.values().copied()
    }
}

impl World {
    /// Contributors that the most exacting rule wants, of those who committed to a
    /// result of `task` or compute it in time.
    fn claims_compared(&self, job: &Job, task: &Task) -> u32 {
        let claims = task.trial.claims.iter();
        let wanted = claims.map(|claim| self.rule(job, task.id, &claim.who).claims).max();
        wanted.unwrap_or(0).max(self.claims_awaited(job, task))
    }

    fn is_revealing(&self, claim: &Claim) -> bool {
        let state = self.leases.get(claim.lease).map(|lease| lease.state);
        matches!(state, Some(LeaseState::Revealing { .. }))
    }

    fn is_projecting(&self, claim: &Claim) -> bool {
        let state = self.leases.get(claim.lease).map(|lease| lease.state);
        matches!(state, Some(LeaseState::Projecting { .. }))
    }
}

impl Engine {
    /// Whether bits cannot decide the trial of a task, or may turn out not to. Whoever
    /// is to be compared keeps its result until then.
    pub(crate) fn goes_by_projections(&mut self, id: JobId, part: u32) -> bool {
        let Some(job) = self.world.jobs.get(&id) else { return false };
        if job.plan.numerics == Numerics::Strict || job.plan.verification == Verification::None {
            return false;
        }
        self.drop_mute(id, part);
        let (Some(job), Some(task)) = (self.world.jobs.get(&id), self.task(id, part)) else {
            return false;
        };
        let trial = &task.trial;
        if trial.panel.is_some() || trial.to_referee {
            return true;
        }
        // The operator's own node is believed without others.
        if trial.claims.iter().any(|claim| claim.who.operator) {
            return false;
        }
        // A single result that was taken out of its contributor's hands is compared by its bits.
        let is_shown = self.is_shown(trial) && (!trial.is_inexact() || trial.claims.len() == 1);
        let may_be_mixed = trial.is_inexact() || !self.world.gpus.is_empty();
        may_be_mixed
            && !trial.claims.is_empty()
            && !is_shown
            && self.world.claims_compared(job, task) > 1
    }

    fn is_shown(&self, trial: &Trial) -> bool {
        !trial.payloads.is_empty()
            || trial.claims.iter().any(|claim| self.world.is_revealing(claim))
    }

    /// Goes on with comparing; true where bits decide after all.
    pub(crate) fn compare(&mut self, id: JobId, part: u32) -> bool {
        let (Some(job), Some(task)) = (self.world.jobs.get(&id), self.task(id, part)) else {
            return false;
        };
        let trial = &task.trial;
        if trial.to_referee {
            self.show_to_referee(id, part);
            return false;
        }
        match trial.panel.as_ref().map(Panel::finding) {
            Some(Finding::Awaited) => {}
            Some(Finding::Agree) => self.take_one(id, part),
            Some(Finding::Differ) => {
                self.stats.panels_split += 1;
                self.show_to_referee(id, part);
            }
            // Of processors that differ one is wrong.
            None if trial.is_disputed() => self.show_to_referee(id, part),
            // Nobody is asked for projections of what was shown already.
            None if self.is_shown(trial) => self.show_to_referee(id, part),
            None if (trial.claims.len() as u32) < self.world.claims_compared(job, task) => {
                self.note_partners(id, part);
            }
            // What was asked of a panel that lost somebody is still to be answered.
            None if trial.claims.iter().any(|claim| self.world.is_projecting(claim)) => {}
            None if !trial.is_inexact() => return true,
            None => {
                let everybody: Vec<&Claim> = trial.claims.iter().collect();
                let is_met = |claim: &Claim| {
                    let rule = self.world.rule(job, task.id, &claim.who);
                    self.world.is_met(rule, claim, &everybody)
                };
                // Agreement that would not suffice need not be looked for.
                if trial.claims.iter().all(is_met) {
                    self.open_panel(id, part);
                } else {
                    self.show_to_referee(id, part);
                }
            }
        }
        false
    }

    /// Asks everybody who has committed for projections.
    fn open_panel(&mut self, id: JobId, part: u32) {
        let key = self.probe_key(id, part);
        let stage = self.stage_mut(id);
        let Some(task) = stage.and_then(|stage| stage.tasks.get_mut(&part)) else { return };
        let claims = task.trial.claims.clone();
        task.trial.panel = Some(Panel::of(&claims));
        self.stats.panels += 1;
        for claim in &claims {
            self.ask_to_project(claim, key);
        }
        self.note_partners(id, part);
    }

    /// A key that was never used and that nobody can foresee.
    fn probe_key(&mut self, id: JobId, part: u32) -> Seed {
        let number = self.keys_drawn;
        self.keys_drawn += 1;
        let Some(task) = self.task(id, part) else { return Seed(number) };
        let half =
            |half| u64::from(draw(&self.world.config, task.id, Purpose::Probe, number << 1 | half));
        Seed(half(0) << 32 | half(1))
    }

    fn ask_to_project(&mut self, claim: &Claim, key: Seed) {
        let Some(lease) = self.world.leases.get_mut(claim.lease) else { return };
        lease.state = LeaseState::Projecting { digest: claim.digest };
        let Some(lease) = self.world.leases.get(claim.lease) else { return };
        // It reads all of its result; how long it takes to send that is a measure of its size.
        let wait_ms = self.world.reveal_ms(lease) * 4.0;
        let longest_ms = self.world.config.lease_ms_max.max(PROJECT_MS_MIN);
        let wait_ms = (wait_ms as Millis).clamp(PROJECT_MS_MIN, longest_ms);
        self.keep_until(claim.lease, self.now + wait_ms);
        let message = Outbound::Project { lease: claim.lease, key, probes: PROBES };
        self.send(claim.session, message);
    }

    fn keep_until(&mut self, id: LeaseId, expires: Millis) {
        if let Some(lease) = self.world.leases.get_mut(id) {
            lease.expires = expires;
            self.timers.set(Timer::LeaseExpiry(id), expires);
        }
    }

    /// Somebody answered; `agrees` says whether with all who did so before.
    pub(crate) fn projected(
        &mut self,
        session: SessionId,
        id: LeaseId,
        projection: PayloadId,
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
        self.keep_until(id, self.now + 2 * self.world.config.lease_ms_max);
        let task = self.stage_mut(job).and_then(|stage| stage.tasks.get_mut(&part));
        let panel = task.and_then(|task| task.trial.panel.as_mut());
        match panel.filter(|panel| panel.leases.contains(&id)) {
            Some(panel) => {
                panel.answers.insert(id, projection);
                panel.differ |= !agrees;
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

    /// All of a panel agree: the result of one of them is taken, once it is shown.
    fn take_one(&mut self, id: JobId, part: u32) {
        let (Some(job), Some(task)) = (self.world.jobs.get(&id), self.task(id, part)) else {
            return;
        };
        let trial = &task.trial;
        let Some(panel) = &trial.panel else { return };
        let is_member = |claim: &&Claim| panel.leases.contains(&claim.lease);
        let members: Vec<Claim> = trial.claims.iter().filter(is_member).copied().collect();
        let shown =
            members.iter().find_map(|claim| Some((claim, trial.payloads.get(&claim.digest)?)));
        if let Some((claim, &Revealed { payload, bytes, odd, .. })) = shown {
            if self.is_looked_at(job, task, &members.iter().collect::<Vec<_>>(), odd) {
                self.note_looked_at(id, part);
                return self.show_to_referee(id, part);
            }
            // Who committed after the others were asked is not waited for.
            let (digest, proof) = (claim.digest, Proof::Agreed);
            return self.accept(id, part, Accepting { digest, payload, bytes, members, proof });
        }
        let is_overdue = |claim: &&Claim| self.world.overdue.contains(&claim.lease);
        let mut revealing = members.iter().filter(|claim| self.world.is_revealing(claim));
        if revealing.any(|claim| !is_overdue(&claim)) {
            return;
        }
        let lease = members.iter().find(|claim| self.world.is_kept(claim)).map(|claim| claim.lease);
        match lease {
            Some(lease) => self.reveal(lease),
            // It may still come.
            None if members.iter().any(|claim| self.world.is_revealing(claim)) => {}
            None => {
                self.dissolve(id, part);
                self.drop_mute(id, part);
                self.note_partners(id, part);
            }
        }
    }

    /// Has results shown that the referee is to judge, and asks it once they are.
    pub(crate) fn show_to_referee(&mut self, id: JobId, part: u32) {
        let stage = self.stage_mut(id);
        let Some(task) = stage.and_then(|stage| stage.tasks.get_mut(&part)) else { return };
        task.trial.to_referee = true;
        let Some(task) = self.task(id, part) else { return };
        let trial = &task.trial;
        let mut awaiting = false;
        let mut ask: Vec<LeaseId> = Vec::new();
        let mut bits = BTreeSet::new();
        for claim in &trial.claims {
            let is_known = claim.who.exact && !bits.insert(claim.digest);
            if is_known || trial.payloads.contains_key(&claim.digest) {
                continue;
            }
            if self.world.is_projecting(claim) {
                awaiting = true;
            } else if self.world.is_kept(claim) {
                ask.push(claim.lease);
            } else if self.world.is_revealing(claim) {
                awaiting |= !self.world.overdue.contains(&claim.lease);
            }
        }
        awaiting |= !ask.is_empty();
        for lease in ask {
            self.reveal(lease);
        }
        if !awaiting {
            self.ask_referee(id, part);
        }
        self.note_partners(id, part);
    }

    /// Forgets a panel that comes to nothing.
    fn dissolve(&mut self, id: JobId, part: u32) {
        let task = self.stage_mut(id).and_then(|stage| stage.tasks.get_mut(&part));
        let panel = task.and_then(|task| task.trial.panel.take());
        self.release_payloads(panel.iter().flat_map(Panel::projections).collect());
    }

    /// Whether a panel has lost somebody before it came to anything.
    fn is_broken(&self, task: &Task) -> bool {
        let Some(panel) = &task.trial.panel else { return false };
        let claims = &task.trial.claims;
        let claim = |lease: &LeaseId| claims.iter().find(|claim| claim.lease == *lease);
        panel.leases.iter().any(|lease| match claim(lease) {
            None => true,
            Some(claim) => !panel.answers.contains_key(lease) && !self.world.is_kept(claim),
        })
    }

    /// Drops commitments of which nothing can be known any more: their contributor has
    /// gone, or did not answer in time. A processor's bits still say something, as
    /// long as bits are what is compared.
    fn drop_mute(&mut self, id: JobId, part: u32) {
        let (Some(job), Some(task)) = (self.world.jobs.get(&id), self.task(id, part)) else {
            return;
        };
        let is_compared = task.trial.panel.is_some()
            || task.trial.to_referee
            || self.world.claims_compared(job, task) > 1;
        if self.is_broken(task) {
            self.dissolve(id, part);
            if let Some(stage) = self.stage_mut(id) {
                stage.put_back(part);
            }
        }
        let Some(task) = self.task(id, part) else { return };
        let trial = &task.trial;
        if trial.panel.as_ref().is_some_and(|panel| panel.finding() == Finding::Agree) {
            return;
        }
        // What was projected speaks also where nothing is shown.
        let is_answered = |claim: &Claim| {
            trial
                .panel
                .as_ref()
                .is_some_and(|it| it.differ && it.answers.contains_key(&claim.lease))
        };
        let is_heard = |claim: &Claim| {
            trial.payloads.contains_key(&claim.digest)
                || self.world.is_kept(claim)
                || self.world.is_revealing(claim)
                || is_answered(claim)
        };
        let is_mixed = trial.claims.iter().any(|claim| !claim.who.exact && is_heard(claim));
        let matters = |who: &Who| is_mixed || !who.exact || who.operator;
        let mute = |claim: &Claim| matters(&claim.who) && !is_heard(claim);
        let mute: BTreeSet<Holder> =
            trial.claims.iter().filter(|claim| mute(claim)).map(Holder::from).collect();
        if mute.is_empty() {
            return;
        }
        // Whoever takes back what is being compared may have seen that it is: what is
        // known of such a GPU counts no more. Nobody is excluded for leaving.
        let taken_back: Vec<Identity> = trial
            .claims
            .iter()
            .filter(|claim| is_compared && !claim.who.exact && mute.contains(&Holder::from(*claim)))
            .map(|claim| claim.who.identity)
            .collect();
        for identity in taken_back {
            self.is_new_again(identity);
        }
        let Some(stage) = self.stage_mut(id) else { return };
        if let Some(task) = stage.tasks.get_mut(&part) {
            task.trial.claims.retain(|claim| !mute.contains(&Holder::from(claim)));
            task.trial.to_referee &= !task.trial.claims.is_empty();
        }
        stage.put_back(part);
        for holder in mute {
            self.came_to(holder, ResultOutcome::Late);
        }
    }
}
