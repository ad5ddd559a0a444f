//! The referee: the coordinator computes a task itself, on the contributors' own kernel.

use crate::effect::{Effect, Testimony, Work};
use crate::ending::Ending;
use crate::engine::Engine;
use crate::event::{Agreement, PayloadId};
use crate::job::{Cause, JobState};
use crate::progress::Kind;
use crate::verify::ledger::Entry;
use crate::verify::outcome::Holder;
use crate::verify::trial::{Claim, Judging};
use crate::verify::trust::{Doubt, Identity, Trust};
use raven_protocol::{
    GoodbyeReason, JobId, LeaseId, ResultDigest, ResultOutcome, SessionId, TaskId,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the referee was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) task: TaskId,
    /// How often the job had gone back when it was asked.
    attempt: u32,
    pub(super) origin: Origin,
    pub(super) claims: Vec<Claim>,
}

/// Where a case comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The trial of an open task.
    Trial,
    /// An accepted result.
    Entry,
    /// A result that came while the referee was computing another's, which is not
    /// what it found.
    Late,
    /// The question whether a task can be done at all, where no result is doubted.
    Inquiry,
    /// The same while others are at it, who are not to lose their work to it.
    Aside,
}

impl Origin {
    /// Whether the job goes on meanwhile. The state that the task reads is kept for
    /// it all the same: rounds are not settled before.
    fn outlives_its_stage(self) -> bool {
        match self {
            Origin::Entry | Origin::Late | Origin::Aside => true,
            Origin::Trial | Origin::Inquiry => false,
        }
    }
}

/// What the referee found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ruling<'a> {
    pub(crate) digest: ResultDigest,
    /// Its own result.
    pub(crate) payload: PayloadId,
    pub(crate) bytes: u64,
    /// By claim, in the order in which they were put to it.
    pub(crate) agrees: &'a [Agreement],
}

impl Engine {
    /// Puts the claims of an open task to the referee.
    pub(crate) fn ask_referee(&mut self, id: JobId, part: u32) {
        let Some(stage) = self.stage_mut(id) else { return };
        let Some(task) = stage.tasks.get_mut(&part) else { return };
        if task.trial.judging != Judging::NotAsked {
            return;
        }
        task.trial.judging = Judging::Asked;
        // From here on they are the referee's: released when it has answered.
        let payloads = std::mem::take(&mut task.trial.payloads);
        let panel = std::mem::take(&mut task.trial.panel);
        stage.short.remove(&part);
        let Some(task) = stage.tasks.get(&part).cloned() else { return };
        let payloads: BTreeMap<ResultDigest, PayloadId> =
            payloads.into_iter().map(|(digest, held)| (digest, held.payload)).collect();
        let mut claims = task.trial.claims;
        // Of a GPU that neither shows its result nor projected it nothing can be said.
        claims.retain(|claim| {
            claim.who.exact || payloads.contains_key(&claim.digest) || panel.has_answer(claim.lease)
        });
        let origin = Origin::Trial;
        self.release_payloads(panel.projections().collect());
        self.open_case(id, task.id, task.work, origin, claims, payloads, task.demand.flops);
    }

    /// Has the referee find out whether a task can be done at all. Where results
    /// are checked its own one is used.
    pub(crate) fn ask_whether_valid(&mut self, id: JobId, part: u32) {
        if !self.is_unchecked(id) {
            let Some(task) = self.task(id, part) else { return };
            // Whoever asks has a lease yet.
            let is_alone = task.leases.len() <= 1 && task.trial.claims.is_empty();
            if is_alone {
                return self.ask_referee(id, part);
            }
            let (task, origin, none) = (task.clone(), Origin::Aside, BTreeMap::new());
            let flops = task.demand.flops;
            return self.open_case(id, task.id, task.work, origin, Vec::new(), none, flops);
        }
        let Some(task) = self.stage_mut(id).and_then(|stage| stage.tasks.get_mut(&part)) else {
            return;
        };
        // The round does not go on before: the referee reads its state.
        task.trial.judging = Judging::Asked;
        let task = task.clone();
        let (origin, none) = (Origin::Inquiry, BTreeMap::new());
        self.open_case(id, task.id, task.work, origin, Vec::new(), none, task.demand.flops);
    }

    /// Whether a task can be done was found out, or cannot be: it is open as before.
    fn inquired(&mut self, id: JobId, task: TaskId) {
        let Some(stage) = self.stage_mut(id).filter(|stage| stage.is_of(task)) else { return };
        let Some(open) = stage.tasks.get_mut(&task.part) else { return };
        open.trial.judging = Judging::NotAsked;
        stage.put_back(task.part);
        self.consider(id, task.part);
    }

    /// Has the referee compute an accepted result again.
    pub(crate) fn recheck(&mut self, id: JobId, task: TaskId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        // What it ends with is being made durable: nobody would hear the answer.
        if matches!(job.ending, Some(Ending::Saving(_))) {
            return;
        }
        let Some(entry) = job.ledger.entries.get_mut(&task).filter(|entry| !entry.asked) else {
            return;
        };
        entry.asked = true;
        let entry = entry.clone();
        let (origin, none) = (Origin::Entry, BTreeMap::new());
        self.open_case(id, task, entry.work, origin, entry.members, none, entry.flops);
    }

    #[allow(clippy::too_many_arguments)]
    fn open_case(
        &mut self,
        id: JobId,
        task: TaskId,
        work: Work,
        origin: Origin,
        claims: Vec<Claim>,
        payloads: BTreeMap<ResultDigest, PayloadId>,
        flops: u64,
    ) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let attempt = job.ledger.attempt();
        job.ledger.cases += u32::from(origin.outlives_its_stage());
        self.stats.referee_runs += 1;
        self.stats.referee_flops = self.stats.referee_flops.saturating_add(flops);
        let (config, trust) = (&self.world.config, &self.world.trust);
        let is_vetted = |identity| {
            let trust = trust.of(identity);
            trust.is_vetted(config) || trust.agreed(true).is_vetted(config)
        };
        let testimonies = claims.iter().map(|claim| Testimony {
            vetted: is_vetted(&claim.who.identity),
            contributor: claim.who.identity.contributor,
            backend: claim.who.identity.backend,
            lease: claim.lease,
            digest: claim.digest,
            payload: payloads.get(&claim.digest).copied(),
        });
        let testimonies: Vec<Testimony> = testimonies.collect();
        for testimony in &testimonies {
            self.world.note_judged(testimony.contributor, true);
        }
        let case = Case { task, attempt, origin, claims };
        let held: Vec<PayloadId> = payloads.into_values().collect();
        let asked = self.ask(id, Kind::Referee, held, |effect| Effect::Referee {
            effect,
            job: id,
            task,
            work,
            testimonies,
        });
        self.cases.insert(asked, case);
        self.world.cases = self.cases.len();
        // What the desk has no room for is put on it as soon as it has.
        if self.world.cases - self.docket.len() > self.world.config.cases_max
            && let Some(question) = self.out.pop_back()
        {
            self.docket.push_back(question);
        }
    }

    pub(super) fn close_case(&mut self, id: JobId, case: &Case) {
        if let Some(job) = self.world.jobs.get_mut(&id) {
            let closed = u32::from(case.origin.outlives_its_stage());
            job.ledger.cases = job.ledger.cases.saturating_sub(closed);
        }
    }

    /// The referee has computed.
    pub(crate) fn ruled(&mut self, id: JobId, case: Case, ruling: Ruling<'_>) {
        self.payloads.insert(ruling.payload);
        self.close_case(id, &case);
        let mut honest = Vec::new();
        let (mut far, mut liars) = (Vec::new(), Vec::new());
        for (claim, agreement) in case.claims.iter().zip(ruling.agrees) {
            match agreement {
                Agreement::Agrees => honest.push(*claim),
                Agreement::Doubtful => honest.push(Claim { doubtful: true, ..*claim }),
                Agreement::Far => far.push(*claim),
                Agreement::False => liars.push(*claim),
            }
        }
        let untold = self.untold(id, &case);
        let is_current = self.world.jobs.get(&id).is_some_and(|job| {
            job.ledger.attempt() == case.attempt && job.ledger.back_to.is_none()
        });
        let mut is_undone = false;
        match case.origin {
            Origin::Trial => {
                let refused: Vec<Claim> = far.iter().chain(&liars).copied().collect();
                let is_open = is_current && self.rule_trial(id, &case, ruling, &honest, &refused);
                if !is_open {
                    self.release_payloads(vec![ruling.payload]);
                }
            }
            Origin::Entry => {
                self.release_payloads(vec![ruling.payload]);
                is_undone = self.rule_entry(id, &case, &honest, &far, &liars);
            }
            Origin::Late | Origin::Aside => self.release_payloads(vec![ruling.payload]),
            Origin::Inquiry => {
                self.release_payloads(vec![ruling.payload]);
                self.inquired(id, case.task);
            }
        }
        self.found_valid(id, case.task);
        if case.origin == Origin::Late {
            for claim in &honest {
                self.comes_to(case.task, claim.into(), ResultOutcome::NotNeeded);
            }
        }
        for claim in &far {
            if self.forget_paid(id, claim.lease) || untold.contains(&claim.lease) {
                self.comes_to(case.task, claim.into(), ResultOutcome::Wrong);
            }
            self.doubted(claim, Doubt::Grave, case.task);
            // It may have been as far off before, which is in the model.
            let identity = claim.who.identity;
            self.look_again(|other| *other == identity);
        }
        for liar in &liars {
            if self.forget_paid(id, liar.lease) || untold.contains(&liar.lease) {
                self.came_to(liar.into(), ResultOutcome::Wrong);
            }
            self.prove_lie(liar, case.task);
        }
        // What is undone is no longer looked at, so everything was voided before.
        if is_undone {
            self.undo_from(id, case.task.round);
        }
        if let Some(job) = self.world.jobs.get(&id)
            && case.origin == Origin::Trial
            && job.stage.as_ref().is_some_and(|stage| stage.round == case.task.round)
        {
            self.consider(id, case.task.part);
        }
        self.go_back(id);
        self.settle(id);
    }

    /// Leases of a case whose contributors were not told what became of their results.
    fn untold(&self, id: JobId, case: &Case) -> BTreeSet<LeaseId> {
        let leases = case.claims.iter().map(|claim| claim.lease);
        match case.origin {
            Origin::Trial => {
                let task = self.task(id, case.task.part).filter(|task| task.id == case.task);
                let claims = task.map_or(&[][..], |task| &task.trial.claims);
                leases.filter(|&lease| claims.iter().any(|claim| claim.lease == lease)).collect()
            }
            Origin::Late => leases.collect(),
            Origin::Entry | Origin::Inquiry | Origin::Aside => BTreeSet::new(),
        }
    }

    /// Enters a ruling into an open trial; false where that is over.
    fn rule_trial(
        &mut self,
        id: JobId,
        case: &Case,
        ruling: Ruling<'_>,
        honest: &[Claim],
        refused: &[Claim],
    ) -> bool {
        let Some(stage) = self.stage_mut(id).filter(|stage| stage.is_of(case.task)) else {
            return false;
        };
        let Some(task) = stage.tasks.get_mut(&case.task.part) else { return false };
        let trial = &mut task.trial;
        // What was committed to meanwhile was not put to the referee: what a GPU
        // said says nothing then, and a processor's other result is one more case.
        let was_heard = |claim: &Claim| case.claims.iter().any(|c| c.lease == claim.lease);
        let is_late = |claim: &Claim| claim.who.exact && !was_heard(claim);
        let late: Vec<Claim> = trial
            .claims
            .iter()
            .filter(|claim| is_late(claim) && claim.digest != ruling.digest)
            .copied()
            .collect();
        trial
            .claims
            .retain(|claim| !refused.iter().chain(&late).any(|other| other.lease == claim.lease));
        let is_heard = |claim: &Claim| claim.who.exact || was_heard(claim);
        let unheard: Vec<Claim> =
            trial.claims.iter().filter(|claim| !is_heard(claim)).copied().collect();
        trial.claims.retain(is_heard);
        for claim in &mut trial.claims {
            claim.doubtful = honest.iter().any(|it| it.lease == claim.lease && it.doubtful);
        }
        let Ruling { digest, payload, bytes, .. } = ruling;
        trial.judging = Judging::Ruled { digest, payload, bytes };
        let (work, flops) = (task.work.clone(), task.demand.flops);
        for claim in &unheard {
            self.comes_to(case.task, claim.into(), ResultOutcome::NotNeeded);
        }
        if !late.is_empty() {
            let none = BTreeMap::new();
            self.open_case(id, case.task, work, Origin::Late, late, none, flops);
        }
        true
    }

    /// Enters a ruling on an accepted result: it is settled, or to be undone.
    fn rule_entry(
        &mut self,
        id: JobId,
        case: &Case,
        honest: &[Claim],
        far: &[Claim],
        liars: &[Claim],
    ) -> bool {
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        let entry = job.ledger.entries.get(&case.task);
        let lease = case.claims.first().map(|claim| claim.lease);
        let is_same = |entry: &&Entry| entry.members.first().map(|member| member.lease) == lease;
        let entry = entry.filter(|entry| entry.asked).filter(is_same).cloned();
        let is_own = entry.as_ref().is_some_and(|entry| job.ledger.is_own(entry));
        if let Some(mut entry) = entry {
            job.ledger.entries.remove(&case.task);
            for member in far.iter().chain(liars) {
                job.void(&mut entry, member.who.identity.contributor);
            }
        }
        let is_refused = !far.is_empty() || !liars.is_empty();
        for member in honest.iter().filter(|_| !is_refused) {
            self.judged_honest(member, case.task, true);
        }
        is_own && is_refused
    }

    /// One more result of `identity` was computed a second time, and right.
    fn agreed(&mut self, identity: Identity, by_referee: bool) {
        let before = self.world.trust.of(&identity);
        let trust = before.agreed(by_referee);
        if trust == before {
            return;
        }
        self.world.trust.set(identity, trust);
        self.world.watch.trust_changed(&identity.contributor);
        if before.is_vetted(&self.world.config) != trust.is_vetted(&self.world.config) {
            self.world.touch_contributor(&identity.contributor);
        }
        self.out.push_back(Effect::Trust { identity, trust });
    }

    /// A result was computed a second time and not found false.
    pub(crate) fn judged_honest(&mut self, member: &Claim, task: TaskId, by_referee: bool) {
        if member.doubtful {
            self.doubted(member, Doubt::Slight, task);
        } else {
            self.world.trust.clear_doubt(&member.who.identity);
            self.agreed(member.who.identity, by_referee);
        }
    }

    /// A result was doubtful: its identity is new again, and goes where that is often so.
    fn doubted(&mut self, member: &Claim, doubt: Doubt, task: TaskId) {
        let identity = member.who.identity;
        self.stats.doubted += 1;
        if self.world.trust.of(&identity) == Trust::Excluded {
            return;
        }
        if self.world.trust.note_doubt(identity, doubt) {
            let detail = format!("task {task}: too many results are far from what tasks yield");
            return self.exclude(member, &detail);
        }
        self.is_new_again(identity);
    }

    /// What is known of an identity counts no more.
    pub(super) fn is_new_again(&mut self, identity: Identity) {
        let before = self.world.trust.of(&identity);
        let trust = before.doubted();
        if trust == before {
            return;
        }
        self.world.trust.set(identity, trust);
        self.world.touch_all();
        self.out.push_back(Effect::Trust { identity, trust });
    }

    /// A result is not what the task yields: its contributor gets no work any
    /// more, and whatever of it was accepted without proof is looked at again.
    /// Bits prove it, whatever device they claim to come from; a GPU's values
    /// speak of that GPU only.
    pub(crate) fn prove_lie(&mut self, liar: &Claim, task: TaskId) {
        self.stats.lies_proven += 1;
        if self.world.trust.of(&liar.who.identity) == Trust::Excluded {
            return;
        }
        self.exclude(liar, &format!("task {task}: the result is not what the task yields"));
    }

    /// An identity gets no work any more, and nothing of it that is not settled is
    /// believed.
    fn exclude(&mut self, liar: &Claim, detail: &str) {
        let identity = liar.who.identity;
        self.stats.excluded += 1;
        self.world.trust.set(identity, Trust::Excluded);
        self.world.watch.trust_changed(&identity.contributor);
        if liar.who.exact {
            self.world.trust.exclude(identity.contributor);
        }
        self.out.push_back(Effect::Trust { identity, trust: Trust::Excluded });
        let exact = liar.who.exact;
        let is_theirs = move |other: &Identity| {
            other == &identity || (exact && other.contributor == identity.contributor)
        };
        for job in self.world.jobs.values_mut() {
            job.ledger.before.exclude(identity);
        }
        self.drop_claims(is_theirs);
        let sessions = self.world.by_contributor.get(&identity.contributor);
        let sessions = sessions.into_iter().flatten().filter_map(|id| self.world.sessions.get(id));
        let sessions = sessions.filter(|session| is_theirs(&session.identity()));
        let sessions: Vec<SessionId> = sessions.map(|session| session.id).collect();
        for session in sessions {
            let (reason, detail) = (GoodbyeReason::Excluded, detail.to_owned());
            self.out.push_back(Effect::Close { session, reason, detail });
            self.session_closed(session);
        }
        let jobs: Vec<JobId> = self.world.jobs.keys().copied().collect();
        for id in jobs {
            self.recheck_all(id, is_theirs);
        }
    }

    /// Has the newest of somebody looked at that is not settled, which stays paid. A doubt
    /// is no proof: what is more than the referee looks at for one undoes nothing.
    fn look_again(&mut self, is_theirs: impl Fn(&Identity) -> bool) {
        let jobs = self.world.jobs.values();
        let entries = jobs.map(|job| (job.id, job.ledger.entries_of(&is_theirs)));
        for (id, mut entries) in entries.collect::<Vec<_>>() {
            entries.retain(Entry::can_be_rechecked);
            let older = entries.len().saturating_sub(self.world.config.rechecks_max);
            for entry in entries.split_off(older) {
                self.recheck(id, entry.task);
            }
        }
    }

    /// Takes what somebody has committed to out of every open trial.
    fn drop_claims(&mut self, is_theirs: impl Fn(&Identity) -> bool) {
        let mut touched = Vec::new();
        let mut dropped: Vec<Holder> = Vec::new();
        for job in self.world.jobs.values_mut() {
            let Some(stage) = &mut job.stage else { continue };
            for (&part, task) in &mut stage.tasks {
                let before = dropped.len();
                task.trial.claims.retain(|claim| {
                    let is_dropped = is_theirs(&claim.who.identity);
                    dropped.extend(is_dropped.then(|| Holder::from(claim)));
                    !is_dropped
                });
                if dropped.len() > before {
                    touched.push((job.id, part));
                }
            }
        }
        for holder in dropped {
            self.came_to(holder, ResultOutcome::Void);
        }
        for (job, part) in touched {
            let mut unused = Vec::new();
            if let Some(stage) = self.stage_mut(job) {
                if let Some(task) = stage.tasks.get_mut(&part) {
                    let trial = &mut task.trial;
                    let claimed: Vec<_> = trial.claims.iter().map(|claim| claim.digest).collect();
                    trial.payloads.retain(|digest, revealed| {
                        let is_claimed = claimed.contains(digest);
                        if !is_claimed {
                            unused.push(revealed.payload);
                        }
                        is_claimed
                    });
                    unused.extend(trial.unclaimed_answers());
                }
                stage.put_back(part);
            }
            self.release_payloads(unused);
            self.consider(job, part);
        }
    }

    /// Everything of a proven liar that is not settled: its pay is void, and
    /// the referee looks at it.
    fn recheck_all(&mut self, id: JobId, is_theirs: impl Fn(&Identity) -> bool) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let mut entries = job.ledger.entries_of(&is_theirs);
        let undone = std::mem::take(&mut job.ledger.undone);
        let (mut voided, others): (Vec<Entry>, Vec<Entry>) =
            undone.into_iter().partition(|entry| entry.is_of(&is_theirs));
        job.ledger.undone = others;
        for entry in voided.iter_mut().chain(&mut entries) {
            let members = entry.members.iter().map(|member| member.who.identity);
            let theirs: Vec<Identity> = members.filter(&is_theirs).collect();
            for identity in theirs {
                job.void(entry, identity.contributor);
            }
        }
        let open = entries.iter().map(|entry| (entry.task, entry.clone()));
        job.ledger.entries.extend(open);
        // Whoever agreed with them there may be found out by something else yet.
        job.ledger.undone.extend_from_slice(&voided);
        voided.extend_from_slice(&entries);
        self.came_to_nothing(id, &voided, &is_theirs);
        if let Some(job) = self.world.jobs.get(&id) {
            entries.retain(|entry| job.ledger.is_own(entry));
        }
        self.recheck_entries(id, entries);
    }

    /// Has the referee look at entries, oldest first, unless that is too much.
    fn recheck_entries(&mut self, id: JobId, entries: Vec<Entry>) {
        let Some(oldest) = entries.first().map(|entry| entry.task.round) else { return };
        let can_look = entries.iter().all(Entry::can_be_rechecked);
        if !can_look || entries.len() > self.world.config.rechecks_max {
            // Or looking would take longer than doing the rounds again.
            return self.undo_from(id, oldest);
        }
        for entry in entries {
            self.recheck(id, entry.task);
        }
    }

    /// The coordinator's own kernel cannot do a task, so nobody can.
    pub(crate) fn found_invalid(&mut self, id: JobId, case: &Case, reason: &str) {
        let reason = format!("task {} cannot be done: {reason}", case.task);
        self.end_for_referee(id, case, Cause::InvalidTasks, reason);
    }

    /// The referee came to nothing. Where nothing depends on it, nothing follows.
    pub(crate) fn referee_failed(&mut self, id: JobId, case: &Case, reason: String) {
        match case.origin {
            Origin::Inquiry => self.inquired(id, case.task),
            Origin::Aside => {
                self.close_case(id, case);
                self.settle(id);
            }
            _ => self.end_for_referee(id, case, Cause::Coordinator, reason),
        }
    }

    fn end_for_referee(&mut self, id: JobId, case: &Case, cause: Cause, reason: String) {
        self.close_case(id, case);
        if case.origin == Origin::Late {
            for claim in &case.claims {
                self.came_to(claim.into(), ResultOutcome::Withdrawn);
            }
        }
        self.begin_end(id, JobState::Failed { cause, reason });
    }
}
