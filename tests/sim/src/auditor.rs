//! An independent model of what the engine may do, told of every event before
//! the engine and of every effect after it. It keeps its own books and shares
//! no code with the engine's state machine. After each event it looks at what
//! that event touched, now and then at everything.

use crate::books::Books;
use crate::ids::{IdMap, IdSet};
use crate::shell::Shell;
use crate::unread::Unread;
use raven_engine::{
    Algorithm, ContributorId, Credit, Effect, EffectError, EffectId, Engine, EngineConfig, Event,
    JobPhase, JobState, JobView, Outbound, Outcome, Payer, PayloadId, Placement, Proof, Record,
    ResumePoint, SessionProfile, StagePlan, Verification, Work, rates, tree,
};
use raven_protocol::{
    Backend, BlobId, GraphId, JobId, LeaseId, Numerics, RefuseReason, ResultDigest, ResultOutcome,
    Seed, SessionId, TaskId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

/// What the model knows of a lease.
#[derive(Clone, Debug)]
struct ModelLease {
    session: SessionId,
    task: TaskId,
    work: Work,
    flops: u64,
    blobs: Vec<BlobId>,
    committed: Option<ResultDigest>,
    revealing: bool,
}

/// What the model knows of a session.
#[derive(Clone, Debug)]
struct ModelSession {
    profile: SessionProfile,
    graphs: IdSet<GraphId>,
    /// Weights and shards, with their bytes, and how many these are together.
    blobs: IdMap<BlobId, u64>,
    held: u64,
    /// Its live leases, and how many of them are not committed.
    leases: IdSet<LeaseId>,
    open: u64,
}

impl ModelSession {
    /// It is sent, or fetches, a blob that it may hold already.
    fn hold(&mut self, blob: BlobId, bytes: u64) {
        let before = self.blobs.insert(blob, bytes);
        self.held = self.held - before.unwrap_or(0) + bytes;
    }
}

/// What came of a lease that was given out.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    /// Whether somebody committed under it in time.
    committed: bool,
    /// What became of its result, in the order in which it was told: there are many
    /// of these, and it comes to three things at most.
    outcomes: [Option<ResultOutcome>; 3],
}

impl Given {
    fn outcomes(&self) -> impl DoubleEndedIterator<Item = ResultOutcome> {
        self.outcomes.into_iter().flatten()
    }
}

/// Live leases of a stage of a round.
type StageKey = (JobId, u32, u32);

/// Events between two looks at everything.
const WHOLE_EVERY: u64 = 4_096;

/// What the model knows of a job.
#[derive(Clone, Debug, Default)]
struct ModelJob {
    /// Whether only processors may work on it.
    strict: bool,
    /// Accepted work that is in no record, by task.
    unpaid: BTreeMap<TaskId, Credit>,
    /// Accepted work in a record that is not durable.
    paying: Vec<Credit>,
    /// By task and how often the job had gone back.
    paid: IdMap<(TaskId, u32), Credit>,
    /// Micro-batches or parts that were accepted, by round and stage.
    accepted: BTreeMap<(u32, u32), BTreeMap<u32, (u32, PayloadId)>>,
    /// States in durable records.
    durable: BTreeSet<BlobId>,
    steps: BTreeSet<u32>,
    /// Rows read in each epoch.
    rows: BTreeMap<u32, IdSet<u32>>,
    /// Rounds that an earlier coordinator has paid for.
    credited_rounds: u32,
    /// The step at which it was resumed.
    resumed_at: u32,
    saving: bool,
    ended: bool,
    /// Whether results are checked before they are believed.
    checked: bool,
    /// Whether it is of placement `master`.
    shown_parts: bool,
    /// How often it went back.
    attempt: u32,
    /// Who committed to what, by task.
    commitments: IdMap<TaskId, Vec<(ContributorId, ResultDigest)>>,
    /// Whether a record was not taken: its credits come again.
    failed_saves: bool,
    /// Executions in records, checked jobs only.
    executions: IdSet<(TaskId, u32, ContributorId)>,
    /// Durably shown slices.
    shown: BTreeMap<raven_engine::ContributorId, BTreeSet<u32>>,
    /// What its durable records say that it owes.
    books: Books,
}

/// The effect that an id stands for.
#[derive(Clone, Debug)]
struct ModelEffect {
    job: JobId,
    reads: Vec<PayloadId>,
    state: Option<BlobId>,
    record: Option<Box<Record>>,
    shows: Option<(raven_engine::ContributorId, u32)>,
    answered: Option<Result<Outcome, EffectError>>,
}

/// The model.
#[derive(Debug)]
pub struct Auditor {
    config: EngineConfig,
    sessions: IdMap<SessionId, ModelSession>,
    live: IdMap<LeaseId, ModelLease>,
    /// By stage: what live leases are of, and how many there are of each.
    extents: BTreeMap<StageKey, BTreeMap<u32, (u32, usize)>>,
    /// How many open effects read each payload and each state.
    payload_readers: IdMap<PayloadId, u32>,
    state_readers: IdMap<(JobId, BlobId), u32>,
    /// Every lease id that was ever given out, with what came of it.
    given: IdMap<LeaseId, Given>,
    jobs: BTreeMap<JobId, ModelJob>,
    effects: IdMap<EffectId, ModelEffect>,
    payloads: IdSet<PayloadId>,
    /// Keys of projections, with what they were drawn for.
    keys: IdMap<Seed, TaskId>,
    /// States that the shell keeps, by job: two jobs may come to equal weights.
    states: IdSet<(JobId, BlobId)>,
    accepted: u64,
    /// Where each job stood after the last event.
    phases: BTreeMap<JobId, JobPhase>,
    checks: u64,
    /// The lease that the event in hand must make the engine accept.
    expected: Option<LeaseId>,
    /// How many results came to what.
    counted: BTreeMap<ResultOutcome, u64>,
    unread: Unread,
}

impl Auditor {
    pub fn new(config: EngineConfig) -> Self {
        Auditor {
            config,
            sessions: IdMap::default(),
            live: IdMap::default(),
            extents: BTreeMap::new(),
            payload_readers: IdMap::default(),
            state_readers: IdMap::default(),
            given: IdMap::default(),
            jobs: BTreeMap::new(),
            effects: IdMap::default(),
            payloads: IdSet::default(),
            keys: IdMap::default(),
            states: IdSet::default(),
            accepted: 0,
            phases: BTreeMap::new(),
            checks: 0,
            expected: None,
            counted: BTreeMap::new(),
            unread: Unread::default(),
        }
    }

    /// A job goes on from a checkpoint of an earlier coordinator, which also
    /// read the rows of the epoch so far.
    pub fn resumed(&mut self, job: JobId, point: &ResumePoint) {
        self.states.insert((job, point.weights));
        let job = self.jobs.entry(job).or_default();
        job.durable.insert(point.weights);
        job.resumed_at = point.step;
        job.attempt = point.rollbacks + point.setbacks.len() as u32;
        job.credited_rounds = point.credited_rounds;
        job.books.resumed(&point.spent, point.credited_rounds);
        job.shown.clone_from(&point.shown);
    }

    /// An event that the engine is about to be told.
    pub fn event(&mut self, event: &Event) {
        self.unread.event(event);
        match event {
            Event::SessionOpened { session, profile } => {
                let model = ModelSession {
                    profile: profile.clone(),
                    graphs: IdSet::default(),
                    blobs: IdMap::default(),
                    held: 0,
                    leases: IdSet::default(),
                    open: 0,
                };
                self.sessions.insert(*session, model);
            }
            Event::SessionClosed { session } => self.close(*session),
            Event::PaceChanged { session, share, workers } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.profile.share = *share;
                    session.profile.workers = *workers;
                }
            }
            Event::Committed { session, lease, digest } => {
                let id = *lease;
                let lease = self.live.get_mut(lease);
                if let Some(lease) = lease.filter(|lease| lease.session == *session) {
                    self.given.get_mut(&id).expect("a live lease was given").committed = true;
                    let model = self.sessions.get_mut(session).expect("its lease is live");
                    model.open -= u64::from(lease.committed.is_none());
                    let digest = *lease.committed.get_or_insert(*digest);
                    let contributor = model.profile.contributor;
                    let job = self.jobs.get_mut(&lease.task.job).expect("a lease is of a job");
                    let commitments = job.commitments.entry(lease.task).or_default();
                    if !commitments.contains(&(contributor, digest)) {
                        commitments.push((contributor, digest));
                    }
                }
            }
            Event::Revealed { session, lease, digest, payload, .. } => {
                assert!(self.payloads.insert(*payload), "{payload:?} was used twice");
                self.revealed(*session, *lease, *digest, *payload);
            }
            Event::Projected { projection, .. } => {
                assert!(self.payloads.insert(*projection), "{projection:?} was used twice");
            }
            Event::Refused { session, lease, reason } => {
                if self.live.get(lease).is_none_or(|live| live.session != *session) {
                    return;
                }
                let live = self.ends(*lease).expect("it is live");
                if let (RefuseReason::Missing, Some(model)) =
                    (reason, self.sessions.get_mut(session))
                {
                    // What a session says it lost is sent again.
                    for blob in &live.blobs {
                        model.held -= model.blobs.remove(blob).unwrap_or(0);
                    }
                }
            }
            Event::EffectDone { effect, outcome } => self.effect_done(*effect, outcome),
            Event::JobAdded { plan, terms, .. } => {
                let job = self.jobs.entry(plan.job).or_default();
                job.books.quoted(plan, terms.allowance);
                job.strict = plan.numerics == Numerics::Strict;
                job.checked = plan.verification != Verification::None;
                let Algorithm::SyncSgd(sgd) = &plan.algorithm;
                job.shown_parts = matches!(sgd.placement, Placement::Master { .. });
            }
            Event::Tick
            | Event::JobCancelled { .. }
            | Event::ToppedUp { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::Arrived { .. }
            | Event::Misprojected { .. }
            | Event::SiteRefuses { .. }
            | Event::VisitorRefuses { .. }
            | Event::Unsent { .. }
            | Event::TrafficLeft { .. } => {}
        }
    }

    fn revealed(&mut self, session: SessionId, id: LeaseId, digest: ResultDigest, pay: PayloadId) {
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

    fn close(&mut self, session: SessionId) {
        let leases = self.sessions.get(&session).map(|model| model.leases.clone());
        for lease in leases.into_iter().flatten() {
            self.ends(lease);
        }
        self.sessions.remove(&session);
    }

    /// A lease is live no more.
    fn ends(&mut self, id: LeaseId) -> Option<ModelLease> {
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

    /// What an effect is going to be answered by.
    pub fn will_answer(&mut self, id: EffectId, answer: &Result<Outcome, EffectError>) {
        let effect = self.effects.get_mut(&id).expect("the effect was asked for");
        assert!(effect.answered.is_none(), "{id:?} is answered twice");
        effect.answered = Some(answer.clone());
        if let Ok(Outcome::StateReady { state } | Outcome::Stepped { state, .. }) = answer {
            let is_new = self.states.insert((effect.job, *state));
            assert!(is_new, "state {state} was made twice");
        }
    }

    /// A job begins `round` again: what was accepted of it and after it is forgotten.
    fn rolled_back(&mut self, id: JobId, round: u32) {
        let job = self.jobs.get_mut(&id).expect("a rollback is of a job");
        job.accepted.retain(|&(accepted, _), _| accepted < round);
        job.steps.retain(|&step| step <= round);
        // The rows of its epoch are read again in part: which ones is not followed up.
        job.rows.clear();
        job.resumed_at = round + 1;
        job.attempt += 1;
    }

    fn effect_done(&mut self, id: EffectId, outcome: &Result<Outcome, EffectError>) {
        if let Ok(Outcome::Judged { payload, .. }) = outcome {
            assert!(self.payloads.insert(*payload), "{payload:?} was used twice");
        }
        let effect = self.effects.remove(&id).expect("an answered effect was asked for");
        for payload in &effect.reads {
            no_longer(&mut self.payload_readers, payload);
        }
        if let Some(state) = effect.state {
            no_longer(&mut self.state_readers, &(effect.job, state));
        }
        let job = self.jobs.get_mut(&effect.job).expect("an effect is of a job");
        if let (Some((contributor, slice)), Ok(_)) = (effect.shows, outcome) {
            job.shown.entry(contributor).or_default().insert(slice);
        }
        let Some(record) = effect.record else { return };
        job.saving = false;
        let paying = std::mem::take(&mut job.paying);
        if outcome.is_ok() {
            job.durable.extend(record.weights);
            job.books.enter(&record);
            job.ended |= record.phase.is_end();
            let paid = paying.into_iter().map(|credit| ((credit.task, credit.attempt), credit));
            job.paid.extend(paid);
        } else {
            job.failed_saves = true;
            job.unpaid.extend(paying.into_iter().map(|credit| (credit.task, credit)));
        }
    }

    /// An effect that the engine asked for.
    pub fn effect(&mut self, effect: &Effect, shell: &mut Shell) {
        match effect {
            Effect::Send { session, message } => self.sent(*session, message, shell),
            Effect::Close { session, .. } => self.close(*session),
            Effect::InitState { effect, job } => self.asked(*effect, *job, vec![], None, None),
            Effect::RunLocal { effect, job, state, .. } => {
                self.asked(*effect, *job, vec![], Some(*state), None);
            }
            Effect::Combine { effect, job, parts, .. } if self.jobs[job].checked => {
                self.asked(*effect, *job, parts.clone(), None, None);
            }
            Effect::Combine { effect, job, round, stage, parts } => {
                let accepted = self.jobs[job].accepted.get(&(*round, *stage));
                let accepted: Vec<PayloadId> =
                    accepted.into_iter().flatten().map(|(_, &(_, payload))| payload).collect();
                assert_eq!(&accepted, parts, "a stage combines what was accepted, in order");
                self.asked(*effect, *job, parts.clone(), None, None);
            }
            Effect::Fold { job, round, total, part } => {
                assert!(self.payloads.contains(&part.payload), "a released payload is folded");
                let model = self.jobs.get_mut(job).expect("a round is of a job");
                if model.checked {
                    let accepted = model.accepted.entry((*round, 0)).or_default();
                    let apart = is_apart(accepted, part.start, part.count);
                    assert!(apart, "{job} {round} {} was accepted twice", part.start);
                    accepted.insert(part.start, (part.count, part.payload));
                    self.accepted += 1;
                }
                let accepted = self.jobs[job].accepted.get(&(*round, 0));
                let found = accepted.and_then(|accepted| accepted.get(&part.start));
                assert_eq!(found, Some(&(part.count, part.payload)), "what is folded was accepted");
                let batch = shell.kernel.order(*job, *round).layout().micro_batches(*round);
                assert_eq!(*total, batch, "a round has one tree");
            }
            Effect::Step { effect, job, round, state, parts, step, .. } => {
                self.step(*job, *round, *step, parts, shell);
                let payloads = parts.iter().map(|part| part.payload).collect();
                self.asked(*effect, *job, payloads, Some(*state), None);
            }
            Effect::Evaluate { effect, job, state } => {
                self.asked(*effect, *job, vec![], Some(*state), None);
            }
            Effect::Persist { effect, record } => {
                self.persist(record);
                self.asked(*effect, record.job, vec![], None, Some(record.clone()));
            }
            Effect::Referee { effect, job, work, testimonies, .. } => {
                let reads = testimonies.iter().filter_map(|testimony| testimony.payload).collect();
                let state = match *work {
                    Work::Replica { state, .. } | Work::Part { state, .. } => state,
                };
                self.asked(*effect, *job, reads, Some(state), None);
            }
            Effect::Trust { .. } | Effect::Settled { .. } => {}
            Effect::Outcome { lease, outcome, .. } => self.came_to(*lease, *outcome),
            Effect::Counted { outcome, results, .. } => {
                *self.counted.entry(*outcome).or_default() += results;
            }
            Effect::RolledBack { job, round } => self.rolled_back(*job, *round),
            Effect::Show { effect, job, contributor, slice } => {
                self.asked(*effect, *job, vec![], None, None);
                let shows = Some((*contributor, *slice));
                self.effects.get_mut(effect).expect("it was asked").shows = shows;
            }
            Effect::ReleasePayloads { payloads } => {
                for payload in payloads {
                    assert!(self.payloads.remove(payload), "{payload:?} was released twice");
                    let is_read = self.payload_readers.contains_key(payload);
                    assert!(!is_read, "{payload:?} is released while it is read");
                }
            }
            Effect::ReleaseState { job, state } => {
                assert!(self.states.remove(&(*job, *state)), "state {state} was released twice");
                let is_read = self.state_readers.contains_key(&(*job, *state));
                assert!(!is_read, "state {state} is released while it is read");
            }
        }
    }

    /// A lease has one outcome, in the end: what was accepted may be undone, and what
    /// was paid may turn out to be false.
    fn came_to(&mut self, lease: LeaseId, outcome: ResultOutcome) {
        use ResultOutcome::{Accepted, Late, NotNeeded, Undone, Void, Withdrawn, Wrong};
        let given = self.given.get_mut(&lease);
        let given = given.unwrap_or_else(|| panic!("{lease} was never given"));
        let in_time = given.committed;
        let may_be = match (given.outcomes().last(), outcome) {
            (None, Late | NotNeeded | Withdrawn) => true,
            (None, Undone) => false,
            (None, _) => in_time,
            (Some(Accepted), Undone) => true,
            (Some(Accepted | Undone), Wrong | Void) => true,
            (Some(_), _) => false,
        };
        let before = &given.outcomes;
        assert!(may_be, "{lease} came to {before:?}, then to {outcome:?}");
        let free = given.outcomes.iter_mut().find(|told| told.is_none());
        *free.expect("it comes to three things at most") = Some(outcome);
    }

    /// Everybody who committed was told what became of it, and those who were
    /// told that they are paid are paid.
    fn check_outcomes(&self, executions: usize) {
        let mut last: BTreeMap<ResultOutcome, u64> = BTreeMap::new();
        for (lease, given) in &self.given {
            let outcome = given.outcomes().last();
            assert!(outcome.is_some() || !given.committed, "{lease} came to nothing that was told");
            if let Some(outcome) = outcome {
                *last.entry(outcome).or_default() += 1;
            }
        }
        assert_eq!(self.counted, last, "each result is counted once, as what it came to");
        let is_accepted = |given: &&Given| given.outcomes[0] == Some(ResultOutcome::Accepted);
        let accepted = self.given.values().filter(is_accepted);
        let is_kept = |given: &&Given| {
            let lost = [ResultOutcome::Wrong, ResultOutcome::Void];
            !given.outcomes().any(|outcome| lost.contains(&outcome))
        };
        let kept = accepted.clone().filter(is_kept).count();
        let paid = kept..=accepted.count();
        assert!(paid.contains(&executions), "{executions} executions are paid, {paid:?} were told");
    }

    fn asked(
        &mut self,
        id: EffectId,
        job: JobId,
        reads: Vec<PayloadId>,
        state: Option<BlobId>,
        record: Option<Box<Record>>,
    ) {
        for payload in &reads {
            assert!(self.payloads.contains(payload), "{id:?} reads a released payload");
            *self.payload_readers.entry(*payload).or_default() += 1;
        }
        if let Some(state) = state {
            assert!(self.states.contains(&(job, state)), "{id:?} reads a released state");
            let durable = self.jobs[&job].durable.contains(&state);
            assert!(durable, "{id:?} reads a state that is not durable");
            *self.state_readers.entry((job, state)).or_default() += 1;
        }
        let effect = ModelEffect { job, reads, state, record, shows: None, answered: None };
        assert!(self.effects.insert(id, effect).is_none(), "{id:?} was used twice");
    }

    /// A step must cover its batch, and each epoch its rows.
    fn step(
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

    fn persist(&mut self, record: &Record) {
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

    fn sent(&mut self, session: SessionId, message: &Outbound, shell: &mut Shell) {
        let Some(model) = self.sessions.get_mut(&session) else {
            panic!("{message:?} is sent to {session}, which is closed");
        };
        match message {
            Outbound::Graph { graph, .. } => {
                model.graphs.insert(*graph);
            }
            Outbound::Weights { job, state } => {
                assert!(self.states.contains(&(*job, *state)), "released weights are sent");
                let durable = self.jobs[job].durable.contains(state);
                assert!(durable, "weights are sent before they are durable");
                model.hold(*state, shell.kernel.plan(*job).weights_bytes);
            }
            Outbound::Task { lease, task, flops, work, lease_ms } => {
                let longest = self.config.lease_ms_min..=self.config.lease_ms_max;
                assert!(longest.contains(lease_ms), "a lease of {lease_ms} ms");
                self.leased(session, *lease, *task, *flops, work, shell);
            }
            Outbound::Project { lease, key, .. } => {
                let lease = self.live.get(lease).expect("a live lease is projected");
                assert_eq!(lease.session, session);
                assert!(lease.committed.is_some(), "nobody knows a key before its commitment");
                assert!(!lease.revealing, "{} was asked for already", lease.task);
                let task = *self.keys.entry(*key).or_insert(lease.task);
                assert_eq!(task, lease.task, "a key serves one task");
            }
            Outbound::Reveal { lease } => {
                let lease = self.live.get_mut(lease).expect("a live lease is revealed");
                assert_eq!(lease.session, session);
                assert!(lease.committed.is_some(), "nothing is revealed before its commitment");
                assert!(!lease.revealing, "{} is asked for twice", lease.task);
                lease.revealing = true;
            }
            Outbound::Cancel { lease } => {
                let cancelled = self.ends(*lease).expect("a live lease is cancelled");
                assert_eq!(cancelled.session, session);
                self.unread.cancelled(session);
            }
            Outbound::Drop { blobs, graphs } => {
                for blob in blobs {
                    let bytes = model.blobs.remove(blob);
                    model.held -=
                        bytes.unwrap_or_else(|| panic!("{blob} is dropped, but not held"));
                    let open = |lease: &&ModelLease| lease.committed.is_none();
                    let mut leases = model.leases.iter().filter_map(|id| self.live.get(id));
                    let reader = leases.find(|lease| open(lease) && lease.blobs.contains(blob));
                    assert!(reader.is_none(), "{blob} is dropped while a lease reads it");
                }
                for graph in graphs {
                    assert!(model.graphs.remove(graph), "{graph:?} is dropped, but not held");
                }
            }
        }
    }

    fn leased(
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
        let (start, count) = extent(work);
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

    /// After each event: the engine's counts are the model's. What is kept of live
    /// leases and open effects is checked as they come and go, and counted anew
    /// every so many events.
    pub fn check(&mut self, engine: &Engine, now: u64) {
        self.checks += 1;
        if self.checks.is_multiple_of(WHOLE_EVERY) {
            self.check_whole(engine);
        }
        let stats = engine.counts();
        self.accepted += u64::from(self.expected.take().is_some());
        // Acceptance of a checked part shows only in what its stage combines.
        let is_hidden = |job: &ModelJob| job.checked && job.shown_parts;
        if !self.jobs.values().any(is_hidden) {
            assert_eq!(stats.tasks_accepted, self.accepted, "accepted tasks");
        }
        assert_eq!(stats.leases_open, self.live.len(), "live leases");
        self.unread.check(stats.leases_expired);
        assert_eq!(stats.effects_open, self.effects.len(), "open effects");
        assert_eq!(stats.payloads_held, self.payloads.len(), "held payloads");
        assert!(stats.sessions_open <= self.config.sessions_max);
        assert!(stats.jobs_open <= self.config.jobs_max);
        // Two timers per lease, one per session; a job's deadline, its fallback, and the end
        // that the store did not take.
        let timers_max = 2 * stats.leases_open + stats.sessions_open + 3 * self.jobs.len() + 1;
        assert!(stats.timers_armed <= timers_max, "timers");
        for (job, phase) in engine.phases() {
            self.phase(job, phase);
        }
        for (id, job) in &mut self.jobs {
            if job.books.closes() {
                let view = engine.job(*id).expect("it has ended just now");
                job.books.compare(*id, &view.spent);
            }
        }
        if let Some(timeout) = engine.next_timeout() {
            assert!(timeout > now, "a timer that is due has fired");
        }
    }

    fn phase(&mut self, job: JobId, now: JobPhase) {
        // An end counts once it is durable: a completion on its way overtakes a wish to end.
        if now.is_end() && self.jobs.get(&job).is_some_and(|job| !job.ended) {
            return;
        }
        let before = self.phases.insert(job, now).unwrap_or(JobPhase::Queued);
        assert!(before == now || before.may_become(now), "{job}: {before} became {now}");
    }

    /// Everything that is live, counted anew.
    fn check_whole(&mut self, engine: &Engine) {
        for view in engine.jobs() {
            self.phase(view.job, view.state.phase());
        }
        let mut extents: BTreeMap<StageKey, BTreeMap<u32, (u32, usize)>> = BTreeMap::new();
        let mut open: IdMap<SessionId, (IdSet<LeaseId>, u64)> = IdMap::default();
        for (&id, lease) in &self.live {
            let (start, count) = extent(&lease.work);
            let stage = extents.entry(stage_of(lease.task)).or_default();
            let (length, leases) = stage.entry(start).or_insert((count, 0));
            assert_eq!(*length, count, "{} overlaps another", lease.task);
            *leases += 1;
            let (leases, open) = open.entry(lease.session).or_default();
            leases.insert(id);
            *open += u64::from(lease.committed.is_none());
        }
        assert_eq!(extents, self.extents, "what live leases are of");
        for (&(job, round, stage), extents) in &extents {
            let ends = extents.iter().map(|(start, (count, _))| start + count);
            let nexts = extents.keys().skip(1);
            assert!(ends.zip(nexts).all(|(end, &next)| end <= next), "tasks of {job} overlap");
            let accepted = self.jobs[&job].accepted.get(&(round, stage));
            for (&start, &(count, _)) in extents {
                let is_new = accepted.is_none_or(|accepted| is_apart(accepted, start, count));
                assert!(is_new, "{job} {round} {stage} {start} is leased and accepted");
            }
        }
        for (session, model) in &self.sessions {
            let (leases, open) = open.remove(session).unwrap_or_default();
            assert_eq!((&leases, open), (&model.leases, model.open), "leases of {session}");
            assert_eq!(model.blobs.values().sum::<u64>(), model.held, "bytes of {session}");
        }
        assert!(open.is_empty(), "leases of closed sessions are live");
        let mut payloads: IdMap<PayloadId, u32> = IdMap::default();
        let mut states: IdMap<(JobId, BlobId), u32> = IdMap::default();
        for effect in self.effects.values() {
            for &payload in &effect.reads {
                *payloads.entry(payload).or_default() += 1;
            }
            if let Some(state) = effect.state {
                *states.entry((effect.job, state)).or_default() += 1;
            }
        }
        assert_eq!((&payloads, &states), (&self.payload_readers, &self.state_readers), "readers");
        assert!(payloads.keys().all(|payload| self.payloads.contains(payload)));
        assert!(states.keys().all(|state| self.states.contains(state)));
    }

    /// A job that has not ended is being worked on or says why not.
    pub fn excuse(&self, job: &JobView) {
        if job.state.is_end() {
            return;
        }
        let working = job.leases > 0 || self.effects.values().any(|effect| effect.job == job.job);
        let says_why = match &job.state {
            JobState::WaitingForContributors { reason } => !reason.is_empty(),
            JobState::Queued | JobState::Paused { .. } => true,
            _ => false,
        };
        assert!(working || says_why, "{} stands still: {:?}", job.job, job.state);
    }

    /// After the end: nothing is left over.
    pub fn finish(&mut self, engine: &Engine, shell: &Shell) {
        self.check_whole(engine);
        let stats = engine.stats(0);
        assert_eq!((stats.leases_open, self.live.len()), (0, 0), "leases are left");
        assert_eq!(stats.timers_armed, 0, "timers are left");
        assert_eq!((stats.effects_open, self.effects.len()), (0, 0), "effects are left");
        assert_eq!((stats.payloads_held, self.payloads.len()), (0, 0), "payloads are left");
        assert!(shell.payloads.is_empty(), "the shell keeps payloads");
        assert!(self.states.is_empty() && shell.states.is_empty(), "states are left");
        assert_eq!((stats.sessions_open, stats.jobs_open), (0, 0));
        let mut paid = 0;
        let executions: usize = self.jobs.values().map(|job| job.executions.len()).sum();
        for (id, job) in &self.jobs {
            assert!(job.ended, "{id}: its end is not durable");
            assert!(job.unpaid.is_empty(), "{id}: accepted work was not paid");
            paid += job.paid.len() + job.unpaid.len();
        }
        self.check_outcomes(executions + paid);
        if !self.jobs.values().any(|job| job.checked) {
            assert_eq!(paid as u64, self.accepted, "credits equal accepted tasks");
        }
        for job in engine.jobs() {
            assert!(job.state.is_end(), "{} has not ended", job.job);
            if job.state.phase() == JobPhase::Completed {
                assert!(job.step <= job.total_steps);
            }
        }
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

fn stage_of(task: TaskId) -> StageKey {
    (task.job, task.round, task.stage)
}

/// Whether `start..start + count` overlaps none of `taken`, which do not overlap
/// each other: lengths by start.
fn is_apart<T>(taken: &BTreeMap<u32, (u32, T)>, start: u32, count: u32) -> bool {
    let last = taken.range(..start + count).next_back();
    last.is_none_or(|(&other, &(length, _))| other + length <= start)
}

/// One reader less.
fn no_longer<K: Eq + Hash>(readers: &mut IdMap<K, u32>, key: &K) {
    let count = readers.get_mut(key).expect("it was read");
    *count -= 1;
    if *count == 0 {
        readers.remove(key);
    }
}

fn extent(work: &Work) -> (u32, u32) {
    match *work {
        Work::Replica { start, count, .. } => (start, count),
        Work::Part { part, .. } => (part, 1),
    }
}
