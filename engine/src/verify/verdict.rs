//! From commitments to an accepted result.

use crate::active::Job;
use crate::dispatch::Notify;
use crate::effect::{Acceptance, Credit, Effect, Payer, Proof, TreePart, Work};
use crate::engine::Engine;
use crate::event::{Oddness, PayloadId};
use crate::lease::LeaseState;
use crate::stage::{Accepted, Supply, Task};
use crate::verify::ledger::Entry;
use crate::verify::settle::is_nearly_settled;
use crate::verify::trial::{Also, Claim, Judging, Revealed};
use crate::verify::{Purpose, QUALIFYING_MAX, Verification, draw, hits};
use raven_protocol::{JobId, LeaseId, Numerics, ResultDigest, ResultOutcome, SessionId};
use std::collections::BTreeMap;

/// One in so many results that look unlikely is computed by the referee: some
/// batches are unlikely.
const UNLIKELY_ONE_IN: u32 = 3;

/// One in so many results of parts that nobody repeated or probed is computed by
/// the referee while their operands are there, besides one of each identity in the
/// last rounds before a settlement. More than of runs, whose last of an identity is
/// computed then also where it has left long before.
const PART_ONE_IN: u32 = 20;

/// A result that is believed.
pub(super) struct Accepting {
    pub(super) digest: ResultDigest,
    pub(super) payload: PayloadId,
    pub(super) bytes: u64,
    /// Those who came to it, in the order of commitment.
    pub(super) members: Vec<Claim>,
    pub(super) proof: Proof,
}

impl Engine {
    pub(crate) fn task(&self, job: JobId, part: u32) -> Option<&Task> {
        self.world.jobs.get(&job)?.stage.as_ref()?.tasks.get(&part)
    }

    /// Whether nobody's results are checked.
    pub(crate) fn is_unchecked(&self, job: JobId) -> bool {
        let job = self.world.jobs.get(&job);
        job.is_none_or(|job| job.plan.verification == Verification::None)
    }

    /// Goes on with the trial of a task, as far as it can.
    pub(crate) fn consider(&mut self, id: JobId, part: u32) {
        self.world.watch.changed((id, part));
        let Some(task) = self.task(id, part) else { return };
        match task.trial.judging {
            Judging::Asked => return,
            Judging::Ruled { digest, payload, bytes } => {
                let agrees = |claim: &&Claim| !claim.who.exact || claim.digest == digest;
                let members = task.trial.claims.iter().filter(agrees).copied().collect();
                let proof = Proof::Refereed;
                let accepting = Accepting { digest, payload, bytes, members, proof };
                return self.accept(id, part, accepting);
            }
            Judging::NotAsked => {}
        }
        self.drop_mute(id, part);
        if self.is_split(id, part) {
            return;
        }
        let awaiting = self.ask_for_payloads(id, part);
        let Some(task) = self.task(id, part) else { return };
        if !self.is_unchecked(id) && task.trial.is_disputed() {
            // One payload of each result makes the evidence; who sends none is found out as well.
            if !awaiting {
                self.ask_referee(id, part);
            }
            return self.note_partners(id, part);
        }
        match self.believed(id, part) {
            Belief::Accepted(accepting) => self.accept(id, part, accepting),
            Belief::Referee => {
                self.note_looked_at(id, part);
                self.ask_referee(id, part);
                self.note_partners(id, part);
            }
            Belief::NotYet => self.note_partners(id, part),
        }
    }

    /// Asks one committed lease of every result for its payload; whether any is awaited.
    fn ask_for_payloads(&mut self, id: JobId, part: u32) -> bool {
        let Some(task) = self.task(id, part) else { return false };
        let trial = &task.trial;
        // What a GPU projects counts as what it came to.
        let mut awaiting = trial.claims.iter().any(|claim| self.world.is_projecting(claim));
        let mut ask: Vec<LeaseId> = Vec::new();
        let exact = trial.digests().into_iter().map(Some);
        // Bits of GPUs are all different: one result is enough, be it a processor's.
        let inexact = (trial.is_inexact() && trial.payloads.is_empty()).then_some(None);
        for group in exact.chain(inexact) {
            let in_group = |claim: &&Claim| match group {
                Some(digest) => claim.who.exact && claim.digest == digest,
                None => !claim.who.exact,
            };
            let group: Vec<&Claim> = trial.claims.iter().filter(in_group).collect();
            if group.iter().any(|claim| trial.payloads.contains_key(&claim.digest)) {
                continue;
            }
            let state = |claim: &&Claim| self.world.leases.get(claim.lease).map(|l| l.state);
            // Whoever is late with a payload is not waited for where another has it.
            let is_revealing = |claim: &&Claim| {
                matches!(state(claim), Some(LeaseState::Revealing { .. }))
                    && !self.world.overdue.contains(&claim.lease)
            };
            let is_committed =
                |claim: &&Claim| matches!(state(claim), Some(LeaseState::Committed { .. }));
            if group.iter().any(is_revealing) {
                awaiting = true;
            } else if let Some(claim) = group.iter().find(|claim| is_committed(claim)) {
                awaiting = true;
                ask.push(claim.lease);
            }
        }
        for lease in ask {
            self.reveal(lease);
        }
        awaiting
    }

    /// Whether an undisputed result is believed.
    fn believed(&self, id: JobId, part: u32) -> Belief {
        let Some(job) = self.world.jobs.get(&id) else { return Belief::NotYet };
        let Some(task) = job.stage.as_ref().and_then(|stage| stage.tasks.get(&part)) else {
            return Belief::NotYet;
        };
        let trial = &task.trial;
        let is_unchecked = job.plan.verification == Verification::None;
        let awaited = if is_unchecked { 0 } else { self.world.claims_awaited(job, task) };
        let is_inexact = trial.is_inexact() && !is_unchecked;
        // Whoever answers late must not escape being compared.
        if is_inexact && self.world.is_hearing(trial) {
            return Belief::NotYet;
        }
        let mut belief = Belief::NotYet;
        for claim in &trial.claims {
            let rule = self.world.rule(job, task.id, &claim.who);
            let agreeing: Vec<&Claim> = match is_inexact {
                true if !trial.is_comparable(claim) => continue,
                true => trial.claims.iter().filter(|other| trial.is_comparable(other)).collect(),
                false if is_unchecked => vec![claim],
                false => trial.claims.iter().filter(|o| o.digest == claim.digest).collect(),
            };
            let payload = if is_inexact { trial.shown() } else { trial.payload_of(claim) };
            let is_met =
                agreeing.len() as u32 >= awaited && self.world.is_met(rule, claim, &agreeing);
            let is_looked_at = !is_unchecked
                && payload
                    .is_some_and(|(_, held)| self.is_looked_at(job, task, &agreeing, held.odd));
            if is_met && is_looked_at {
                belief = Belief::Referee;
                continue;
            }
            if is_met {
                let Some((digest, Revealed { payload, bytes, lease, .. })) = payload else {
                    continue;
                };
                let mut members: Vec<Claim> = agreeing.into_iter().copied().collect();
                let proof = match (job.plan.verification, members.len()) {
                    (Verification::None, _) => {
                        members = trial.claims.clone();
                        members.retain(|member| member.lease == lease);
                        Proof::Unchecked
                    }
                    (_, 1) => Proof::Single,
                    _ => Proof::Agreed,
                };
                return Belief::Accepted(Accepting { digest, payload, bytes, members, proof });
            }
            let enough =
                agreeing.len() as u32 >= rule.claims.max(awaited) && rule.also != Also::Nobody;
            // What a GPU came to is compared by its values.
            if enough && (claim.who.exact || payload.is_some()) {
                belief = Belief::Referee;
            }
        }
        belief
    }

    /// Whether the referee computes a task although those who agree suffice.
    pub(super) fn is_looked_at(
        &self,
        job: &Job,
        task: &Task,
        agreeing: &[&Claim],
        odd: Oddness,
    ) -> bool {
        let config = &self.world.config;
        let hits = |purpose, nonce, one_in| hits(draw(config, task.id, purpose, nonce), one_in);
        let attempt = job.ledger.attempt().into();
        let is_part = matches!(task.work, Work::Part { .. });
        match odd {
            // What is no number ends a job, so it is not taken on one word.
            Oddness::NotFinite | Oddness::Faulty => true,
            Oddness::Unlikely => hits(Purpose::Odd, 0, UNLIKELY_ONE_IN),
            Oddness::Plain | Oddness::Probed if agreeing.iter().all(|it| it.who.operator) => false,
            // Runs are audited when their rounds are settled, parts while their operands are there.
            Oddness::Plain if is_part => {
                let is_last = matches!(agreeing, [single] if is_nearly_settled(config, job)
                    && !job.ledger.looked_at.contains(&single.who.identity));
                let one_in = if agreeing.len() == 1 { PART_ONE_IN } else { config.audit_one_in };
                is_last || hits(Purpose::Audit, attempt, one_in)
            }
            // Probes see no difference that is as small as rounding; bits that are promised do.
            Oddness::Probed if job.plan.numerics == Numerics::Strict => {
                hits(Purpose::Audit, attempt, config.audit_one_in)
            }
            Oddness::Plain | Oddness::Probed => false,
        }
    }

    /// Notes of whom the referee computes a part before the next settlement.
    pub(super) fn note_looked_at(&mut self, id: JobId, part: u32) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if !is_nearly_settled(&self.world.config, job) {
            return;
        }
        let task = job.stage.as_ref().and_then(|stage| stage.tasks.get(&part));
        let Some(task) = task.filter(|task| matches!(task.work, Work::Part { .. })) else { return };
        // Of a GPU that has said nothing the referee learns nothing.
        let trial = &task.trial;
        let is_heard = |claim: &&Claim| claim.who.exact || trial.is_comparable(claim);
        let heard = trial.claims.iter().filter(is_heard).map(|claim| claim.who.identity);
        job.ledger.looked_at.extend(heard);
    }

    /// Notes whether somebody else should compute the task as well.
    pub(crate) fn note_partners(&mut self, id: JobId, part: u32) {
        self.world.watch.changed((id, part));
        let Some(job) = self.world.jobs.get(&id) else { return };
        let Some(stage) = &job.stage else { return };
        let wanted = stage.tasks.get(&part).map_or(0, |task| {
            let has_begun = !task.leases.is_empty() || !task.trial.claims.is_empty();
            if has_begun { self.world.partners_wanted(job, task) } else { 0 }
        });
        let now = self.now;
        let Some(stage) = self.stage_mut(id) else { return };
        if wanted > 0 {
            let trial = stage.tasks.get_mut(&part).map(|task| &mut task.trial);
            let since = trial.map_or(now, |trial| *trial.short_since.get_or_insert(now));
            stage.short.insert(part, since);
        } else {
            stage.short.remove(&part);
        }
    }

    /// The result counts, and every lease of the task is over.
    pub(super) fn accept(&mut self, id: JobId, part: u32, accepting: Accepting) {
        let Accepting { digest, payload, bytes, mut members, proof } = accepting;
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let Some(stage) = &mut job.stage else { return };
        let Some(task) = stage.tasks.remove(&part) else { return };
        stage.short.remove(&part);
        let flops = task.demand.flops;
        stage.accepted.insert(part, Accepted { units: task.units(), payload });
        if let Supply::Runs(pool) = &stage.supply {
            let part = TreePart { start: part, count: task.units(), payload };
            let (round, total) = (stage.round, pool.total());
            self.out.push_back(Effect::Fold { job: id, round, total, part });
        }
        stage.units_left -= task.units();
        stage.flops_left = stage.flops_left.saturating_sub(flops);
        job.service += u128::from(flops);
        job.tasks_accepted += 1;
        job.flops_accepted = job.flops_accepted.saturating_add(flops);
        job.tally.accept(task.id.round, flops);
        let late = self.world.late_payloads(&task);
        // Whoever was asked for its result and did not send it comes last: it
        // takes nobody's place who would have, or has.
        let is_withheld = |claim: &Claim| {
            task.trial.withheld.contains(&claim.lease) || late.contains(&claim.lease)
        };
        members.sort_by_key(is_withheld);
        members.truncate(QUALIFYING_MAX);
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        for claim in &task.trial.claims {
            let is_paid = members.iter().any(|member| member.lease == claim.lease);
            let outcome = if is_paid { ResultOutcome::Accepted } else { ResultOutcome::NotNeeded };
            job.outcomes.push((claim.into(), outcome));
        }
        job.accepted.push(Acceptance { task: task.id, digest });
        let credits =
            members.iter().map(|member| (member.lease, credit(job, &task, member, proof)));
        let payers: BTreeMap<LeaseId, Payer> = credits.collect();
        self.stats.panels += u64::from(task.trial.is_inexact() && proof == Proof::Agreed);
        self.stats.tasks_accepted += 1;
        self.stats.executions_paid += members.len() as u64;
        self.stats.flops_paid += flops.saturating_mul(members.len() as u64);
        self.stats.flops_accepted = self.stats.flops_accepted.saturating_add(flops);
        self.stats.result_bytes = self.stats.result_bytes.saturating_add(bytes);
        self.window.add(self.now, flops);
        self.believe(id, &task, &members, payers, proof);
        self.found_valid(id, task.id);
        let sent = members.iter().filter(|member| !is_withheld(member));
        for session in sent.map(|member| member.session).collect::<Vec<SessionId>>() {
            self.proved_itself(session);
        }
        let mut unused = task.trial.held();
        unused.retain(|&other| other != payload);
        self.release_payloads(unused);
        for id in task.leases {
            let is_overdue = self.world.overdue.contains(&id);
            let ended = self.end_lease(id, Notify::Cancel(ResultOutcome::NotNeeded));
            let Some(lease) = ended else { continue };
            if late.contains(&id) {
                self.observe_late_answer(&lease);
                self.strike(lease.session);
            } else {
                self.outrun(&lease, is_overdue && lease.is_open());
            }
        }
        self.stage_progressed(id);
    }

    /// A session has computed and sent what it promised.
    fn proved_itself(&mut self, id: SessionId) {
        if let Some(session) = self.world.sessions.get_mut(&id) {
            session.strikes = 0;
            self.world.touched.insert(id);
        }
        self.world.doubtful.remove(&id);
    }

    /// What an accepted result says of its contributors, and what is to be settled of it.
    fn believe(
        &mut self,
        id: JobId,
        task: &Task,
        members: &[Claim],
        payers: BTreeMap<LeaseId, Payer>,
        proof: Proof,
    ) {
        for member in members {
            if let Some(session) = self.world.sessions.get_mut(&member.session) {
                session.tasks_accepted += 1;
                session.flops_accepted = session.flops_accepted.saturating_add(task.demand.flops);
            }
        }
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let order = job.ledger.take_order();
        let is_checked = matches!(proof, Proof::Agreed | Proof::Refereed);
        let is_trusted = members.iter().all(|member| member.who.operator);
        if job.plan.verification != Verification::None
            && !is_trusted
            && matches!(proof, Proof::Single | Proof::Agreed)
        {
            let drawn = draw(&self.world.config, task.id, Purpose::Audit, order);
            let attempt = job.ledger.attempt();
            let mut shown = task.trial.payloads.values();
            let entry = Entry {
                is_odd: shown.any(|it| it.odd == Oddness::Unlikely),
                order,
                task: task.id,
                work: task.work.clone(),
                flops: task.demand.flops,
                attempt,
                members: members.to_vec(),
                payers,
                asked: false,
                drawn: hits(drawn, self.world.config.audit_one_in),
            };
            job.ledger.entries.insert(task.id, entry);
        }
        if is_checked {
            for member in members.iter().filter(|member| !member.who.operator) {
                self.judged_honest(member, task.id, proof == Proof::Refereed);
            }
        }
    }
}

/// What becomes of an undisputed result.
enum Belief {
    Accepted(Accepting),
    /// Those who agree do not suffice without it.
    Referee,
    NotYet,
}

/// Enters what one execution earns; who pays for it.
fn credit(job: &mut Job, task: &Task, member: &Claim, proof: Proof) -> Payer {
    let flops = task.demand.flops;
    let payer = job.tally.charge(task.id.round, flops);
    match payer {
        Payer::Job => job.spent.add(flops, member.rate),
        Payer::Operator => job.spent.add_operators(flops, member.rate),
    }
    job.credits.push(Credit {
        task: task.id,
        attempt: job.ledger.attempt(),
        contributor: member.who.identity.contributor,
        session: member.session,
        site: member.who.site,
        beneficiary: member.who.beneficiary,
        flops,
        rate: member.rate,
        backend: member.who.identity.backend,
        digest: member.digest,
        proof,
        payer,
    });
    payer
}
