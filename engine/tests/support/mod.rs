//! An engine with one job and as many contributors as a test opens. Effects of
//! the shell are answered at once, the referee's when a test says so.

#![allow(dead_code, reason = "each test uses a part of it")]

use raven_engine::money::NanoUsd;
use raven_engine::{
    Agreement, Algorithm, Allowance, Beneficiary, Category, ContributorId, Credit, Divergence,
    Earlier, Effect, EffectError, EffectId, Engine, EngineConfig, Event, JobPlan, JobState,
    LossMonitor, Metrics, Millis, NetworkPrefix, Oddness, OpenWord, Outbound, Outcome, PartPlan,
    Patience, PayloadId, Placement, Rates, RefusedCategories, ResumePoint, SessionProfile,
    SessionStatus, Spent, StagePlan, SyncSgd, Terms, Testimony, Trust, Verification, Void,
};
use raven_graph::schedule::Schedule;
use raven_protocol::{
    BlobId, DeviceClass, GraphId, JobId, KernelId, LeaseId, NumericClass, Numerics, ResultDigest,
    ResultOutcome, Seed, SessionId, ShardRef, TaskId,
};
use std::collections::BTreeMap;

pub const JOB: JobId = JobId(1);
pub const KERNEL: KernelId = KernelId([7; 32]);
/// Micro-batches of a round.
pub const TASKS: u32 = 4;
pub const ROUNDS: u32 = 6;
/// Of a micro-batch, and of a part.
pub const FLOPS: u64 = 15_000_000_000;

/// Where a job goes on after a restart.
pub const FIRST_STATE: BlobId = BlobId([2; 32]);

/// What the referee was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub effect: EffectId,
    pub task: TaskId,
    pub testimonies: Vec<Testimony>,
}

/// The engine, its job, and what has come out of it.
pub struct Rig {
    pub engine: Engine,
    pub now: Millis,
    /// Tasks that were sent and not taken by the test, by session.
    tasks: BTreeMap<SessionId, Vec<(TaskId, LeaseId, u64)>>,
    pub reveals: Vec<(SessionId, LeaseId)>,
    /// Who was asked for projections, under which key.
    pub projects: Vec<(SessionId, LeaseId, Seed)>,
    pub cancels: Vec<(SessionId, LeaseId)>,
    pub referee: Vec<Asked>,
    /// What was told of results, and the same by the event after which it was.
    pub outcomes: Vec<(SessionId, LeaseId, ResultOutcome)>,
    pub batches: Vec<Vec<(SessionId, LeaseId, ResultOutcome)>>,
    /// How many results were counted as what, and of whom.
    pub counted: BTreeMap<ResultOutcome, u64>,
    pub counted_of: BTreeMap<(ContributorId, ResultOutcome), u64>,
    /// For tests to note what leases are of, and what was committed to.
    pub leased: BTreeMap<LeaseId, TaskId>,
    pub digests: BTreeMap<LeaseId, ResultDigest>,
    /// What was credited in durable records.
    pub credits: Vec<Credit>,
    /// What of it was void later.
    pub voids: Vec<Void>,
    /// What the last of them says of earlier processes.
    pub earlier: Option<Earlier>,
    next: u64,
    /// What one projection takes in the shell.
    pub projection_bytes: u64,
    /// How often the engine has settled what it had accepted.
    pub settled: u32,
}

/// What an honest contributor comes to.
pub fn truth(task: TaskId) -> ResultDigest {
    value(task, 7)
}

/// A result of `task`, told apart by `tag`.
pub fn value(task: TaskId, tag: u8) -> ResultDigest {
    let mut bytes = [tag; 32];
    bytes[..4].copy_from_slice(&task.round.to_le_bytes());
    bytes[4..8].copy_from_slice(&task.part.to_le_bytes());
    ResultDigest(bytes)
}

pub fn no_memory() -> EffectError {
    EffectError { stage: "executor", reason: "the instance has no memory left".into() }
}

/// The referee answers its first question: the task yields `value(task, tag)`.
pub fn referee_finds(rig: &mut Rig, tag: u8) {
    let Asked { effect, task, testimonies } = rig.referee.remove(0);
    let digest = value(task, tag);
    let agreement = |is_true| if is_true { Agreement::Agrees } else { Agreement::False };
    let agrees = testimonies.iter().map(|testimony| agreement(testimony.digest == digest));
    let agrees = agrees.collect();
    let payload = rig.payload();
    let outcome = Ok(Outcome::Judged { digest, payload, bytes: 100, agrees });
    rig.tell(Event::EffectDone { effect, outcome });
}

/// The referee answers its first question: nobody can do such a task.
pub fn referee_refuses(rig: &mut Rig, reason: &str) {
    let asked = rig.referee.remove(0);
    let outcome = Ok(Outcome::Invalid { reason: reason.into() });
    rig.tell(Event::EffectDone { effect: asked.effect, outcome });
}

fn plan(verification: Verification) -> JobPlan {
    let rows = TASKS * 8 * ROUNDS;
    let shards =
        vec![ShardRef { blob: BlobId([9; 32]), first_row: 0, rows, bytes: u64::from(rows) }];
    let placement = Placement::Replica {
        graph: GraphId([3; 32]),
        // More than a worker may be given at once, so that each task is one micro-batch.
        flops: FLOPS,
        bytes_peak: 1 << 20,
        result_bytes: 1_000,
    };
    JobPlan {
        job: JOB,
        category: Category::Vision,
        seed: Seed(5),
        numerics: Numerics::Strict,
        verification,
        kernel: KERNEL,
        algorithm: Algorithm::SyncSgd(SyncSgd {
            train_rows: rows,
            batch: TASKS * 8,
            micro_batch: 8,
            epochs: 1,
            schedule: Schedule::constant(0.1),
            early_stopping: None,
            placement,
            groups: 1,
            divergence: None,
            shards,
            weights_bytes: 1_000,
        }),
    }
}

/// One stage a round, with a part of each of those flops.
fn pushed(flops: &[u64]) -> Placement {
    let part = |&flops: &u64| PartPlan {
        graph: GraphId([3; 32]),
        flops,
        bytes_peak: 1 << 20,
        operand_bytes: 1_000,
        result_bytes: 1_000,
        slice: None,
    };
    let stages = vec![StagePlan::Pushed { parts: flops.iter().map(part).collect() }];
    Placement::Master { stages, slices: 0, slices_held_max: 0 }
}

impl Rig {
    /// An engine with one job.
    pub fn new(verification: Verification) -> Self {
        Rig::with(plan(verification))
    }

    /// The same with a relaxed one.
    pub fn relaxed(verification: Verification) -> Self {
        Rig::with(JobPlan { numerics: Numerics::Relaxed, ..plan(verification) })
    }

    /// One whose referee's desk has little room.
    pub fn with_desk(verification: Verification, cases_max: usize) -> Self {
        let config = EngineConfig { cases_max, ..EngineConfig::default() };
        Rig::of(plan(verification), config, Terms::default())
    }

    /// One whose job is in placement `master`: each round is one stage of so many parts.
    pub fn of_parts(verification: Verification, parts: usize, cases_max: usize) -> Self {
        let mut plan = plan(verification);
        let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
        sgd.placement = pushed(&vec![FLOPS; parts]);
        Rig::of(plan, EngineConfig { cases_max, ..EngineConfig::default() }, Terms::default())
    }

    /// A relaxed one in placement `master` with so many rounds of `TASKS` parts.
    pub fn relaxed_parts(verification: Verification, rounds: u32) -> Self {
        let mut plan = JobPlan { numerics: Numerics::Relaxed, ..plan(verification) };
        let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
        sgd.train_rows = TASKS * 8 * rounds;
        sgd.shards[0].rows = sgd.train_rows;
        sgd.placement = pushed(&[FLOPS; TASKS as usize]);
        Rig::with(plan)
    }

    /// One whose job has so many rounds, of which so many may be unsettled.
    pub fn of_rounds(verification: Verification, rounds: u32, unsettled: usize) -> Self {
        Rig::of_rounds_on(verification, rounds, unsettled, Terms::default())
    }

    /// The same on terms.
    pub fn of_rounds_on(
        verification: Verification,
        rounds: u32,
        unsettled: usize,
        terms: Terms,
    ) -> Self {
        let mut plan = plan(verification);
        let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
        sgd.train_rows = TASKS * 8 * rounds;
        sgd.shards[0].rows = sgd.train_rows;
        let config = EngineConfig { unsettled_rounds_max: unsettled, ..EngineConfig::default() };
        Rig::of(plan, config, terms)
    }

    /// One whose job holds so much, and may begin again where its loss diverges.
    pub fn that_may_diverge(verification: Verification, escrow: NanoUsd) -> Self {
        let mut plan = plan(verification);
        let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
        let rule =
            Divergence { factor: 4.0, window: 2, setbacks_max: 1, learning_rate_factor: 0.5 };
        sgd.divergence = Some(rule);
        let terms = Terms { escrow: Some(escrow), ..Terms::default() };
        Rig::of(plan, EngineConfig::default(), terms)
    }

    fn with(plan: JobPlan) -> Self {
        Rig::of(plan, EngineConfig::default(), Terms::default())
    }

    /// One whose job may be charged so many executions of a task.
    pub fn allowing(verification: Verification, allowance: Allowance) -> Self {
        let terms = Terms { allowance: Some(allowance), ..Terms::default() };
        Rig::of(plan(verification), EngineConfig::default(), terms)
    }

    /// One whose job pays those rates.
    pub fn paying(numerics: Numerics, verification: Verification, rates: Rates) -> Self {
        let plan = JobPlan { numerics, ..plan(verification) };
        Rig::of(plan, EngineConfig::default(), Terms { rates, ..Terms::default() })
    }

    /// The same in placement `master`, with a part of each of those flops a round.
    pub fn paying_parts(verification: Verification, rates: Rates, flops: &[u64]) -> Self {
        let mut plan = plan(verification);
        let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
        sgd.placement = pushed(flops);
        Rig::of(plan, EngineConfig::default(), Terms { rates, ..Terms::default() })
    }

    /// The same where an earlier process did the first rounds, and has kept none of their
    /// weights but the first.
    pub fn resumed(verification: Verification, allowance: Allowance, credited_rounds: u32) -> Self {
        Rig::resumed_with(verification, allowance, credited_rounds, Vec::new())
    }

    /// The same with what of them was taken on one word.
    pub fn resumed_with(
        verification: Verification,
        allowance: Allowance,
        credited_rounds: u32,
        open: Vec<OpenWord>,
    ) -> Self {
        let terms = Terms { allowance: Some(allowance), ..Terms::default() };
        let point = ResumePoint {
            weights: FIRST_STATE,
            step: 0,
            epochs_done: 0,
            best: None,
            patience: Patience::default(),
            shown: BTreeMap::new(),
            credited_rounds,
            spent: Spent::default(),
            rollbacks: 0,
            attempt: 1,
            setbacks: Vec::new(),
            losses: LossMonitor::default(),
            open,
        };
        Rig::begun(plan(verification), EngineConfig::default(), terms, Some(point))
    }

    fn of(plan: JobPlan, config: EngineConfig, terms: Terms) -> Self {
        Rig::begun(plan, config, terms, None)
    }

    fn begun(
        plan: JobPlan,
        config: EngineConfig,
        terms: Terms,
        resume: Option<ResumePoint>,
    ) -> Self {
        let mut rig = Rig {
            engine: Engine::new(EngineConfig { seed: 11, ..config }),
            now: 0,
            tasks: BTreeMap::new(),
            reveals: Vec::new(),
            projects: Vec::new(),
            cancels: Vec::new(),
            referee: Vec::new(),
            outcomes: Vec::new(),
            batches: Vec::new(),
            counted: BTreeMap::new(),
            counted_of: BTreeMap::new(),
            leased: BTreeMap::new(),
            digests: BTreeMap::new(),
            credits: Vec::new(),
            voids: Vec::new(),
            earlier: None,
            next: 0,
            projection_bytes: 256,
            settled: 0,
        };
        let plan = Box::new(plan);
        rig.tell(Event::JobAdded { plan, resume, terms: Box::new(terms) });
        rig
    }

    pub fn session(contributor: u64) -> SessionId {
        SessionId(1_000 + contributor)
    }

    pub fn contributor(contributor: u64) -> ContributorId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&contributor.to_le_bytes());
        ContributorId(id)
    }

    /// Somebody of another network than all others.
    pub fn open(&mut self, contributor: u64) {
        self.open_as(contributor, Trust::default());
    }

    pub fn open_as(&mut self, contributor: u64, trust: Trust) {
        self.open_on(contributor, trust, NumericClass::Cpu { kernel: KERNEL });
    }

    /// Somebody's GPU.
    pub fn open_gpu(&mut self, contributor: u64, trust: Trust) {
        self.open_on(contributor, trust, NumericClass::Gpu { kernel: KERNEL });
    }

    fn open_on(&mut self, contributor: u64, trust: Trust, numeric: NumericClass) {
        let profile = Self::profile(contributor, trust, numeric);
        self.open_profile(contributor, profile);
    }

    pub fn open_profile(&mut self, contributor: u64, profile: SessionProfile) {
        self.tell(Event::SessionOpened { session: Self::session(contributor), profile });
    }

    /// Of somebody of another network than all others.
    pub fn profile(contributor: u64, trust: Trust, numeric: NumericClass) -> SessionProfile {
        let mut prefix = [0x20; 16];
        prefix[..8].copy_from_slice(&contributor.to_le_bytes());
        SessionProfile {
            contributor: Self::contributor(contributor),
            site: None,
            beneficiary: Beneficiary::default(),
            prefix: NetworkPrefix(prefix),
            device: DeviceClass::Desktop,
            numeric,
            flops_per_s: 10_000_000_000,
            share: 1.0,
            workers: 1,
            memory_bytes: 1 << 30,
            traffic_bytes: None,
            refused: RefusedCategories::default(),
            trust,
            operator: false,
        }
    }

    pub fn payload(&mut self) -> PayloadId {
        self.next += 1;
        PayloadId(self.next)
    }

    /// Tells the engine, and answers what it asks of the shell.
    pub fn tell(&mut self, event: Event) {
        self.now += 1;
        self.engine.handle(self.now, event);
        let mut answers = Vec::new();
        let told = self.outcomes.len();
        while let Some(effect) = self.engine.poll_effect() {
            answers.extend(self.perform(effect));
        }
        if self.outcomes.len() > told {
            self.batches.push(self.outcomes[told..].to_vec());
        }
        for (effect, outcome) in answers {
            self.tell(Event::EffectDone { effect, outcome: Ok(outcome) });
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<(EffectId, Outcome)> {
        let metrics = Metrics { loss_sum: 1.0, correct: 1.0, count: 1.0 };
        match effect {
            Effect::Send { session, message } => {
                match message {
                    Outbound::Task { lease, task, flops, .. } => {
                        self.tasks.entry(session).or_default().push((task, lease, flops));
                    }
                    Outbound::Reveal { lease } => self.reveals.push((session, lease)),
                    Outbound::Project { lease, key, .. } => {
                        self.projects.push((session, lease, key));
                    }
                    Outbound::Cancel { lease } => self.cancels.push((session, lease)),
                    _ => {}
                }
                None
            }
            Effect::InitState { effect, .. } => {
                Some((effect, Outcome::StateReady { state: self.state_id() }))
            }
            Effect::Step { effect, .. } => {
                let state = self.state_id();
                Some((effect, Outcome::Stepped { state, metrics, grad_norm: 1.0 }))
            }
            Effect::RunLocal { effect, .. } | Effect::Combine { effect, .. } => {
                Some((effect, Outcome::StageDone))
            }
            Effect::Evaluate { effect, .. } => Some((effect, Outcome::Evaluated { metrics })),
            Effect::Persist { effect, record } => {
                self.credits.extend(&record.credits);
                self.voids.extend(&record.voids);
                self.earlier.clone_from(&record.earlier);
                Some((effect, Outcome::Persisted))
            }
            Effect::Show { effect, .. } => Some((effect, Outcome::Persisted)),
            Effect::Referee { effect, task, testimonies, .. } => {
                self.referee.push(Asked { effect, task, testimonies });
                None
            }
            Effect::Counted { contributor, outcome, results } => {
                *self.counted.entry(outcome).or_default() += results;
                *self.counted_of.entry((contributor, outcome)).or_default() += results;
                None
            }
            Effect::Settled { .. } => {
                self.settled += 1;
                None
            }
            Effect::Outcome { session, lease, outcome } => {
                self.outcomes.push((session, lease, outcome));
                None
            }
            _ => None,
        }
    }

    fn state_id(&mut self) -> BlobId {
        self.next += 1;
        let mut id = [1; 32];
        id[..8].copy_from_slice(&self.next.to_le_bytes());
        BlobId(id)
    }

    /// Tasks that a contributor was sent since this was last asked.
    pub fn take_tasks(&mut self, contributor: u64) -> Vec<(TaskId, LeaseId, u64)> {
        self.tasks.remove(&Self::session(contributor)).unwrap_or_default()
    }

    /// A contributor commits to a result under a lease.
    pub fn commit(&mut self, contributor: u64, lease: LeaseId, digest: ResultDigest) {
        self.tell(Event::Committed { session: Self::session(contributor), lease, digest });
    }

    /// A contributor answers for projections of a result.
    pub fn project(&mut self, contributor: u64, lease: LeaseId, agrees: bool) {
        let session = Self::session(contributor);
        self.projects.retain(|&(_, asked, _)| asked != lease);
        let projection = self.payload();
        let bytes = self.projection_bytes;
        self.tell(Event::Projected { session, lease, projection, bytes, agrees });
    }

    /// A contributor shows a result.
    pub fn reveal(&mut self, contributor: u64, lease: LeaseId, agrees: bool) {
        let session = Self::session(contributor);
        assert!(self.reveals.contains(&(session, lease)), "it was not asked for");
        self.reveals.retain(|&(_, asked)| asked != lease);
        let (digest, payload) = (self.digests[&lease], self.payload());
        let (bytes, odd) = (100, Oddness::Plain);
        self.tell(Event::Revealed { session, lease, digest, payload, bytes, odd, agrees });
    }

    /// Everybody who was asked for a payload sends what `digest` says.
    pub fn reveal_all(&mut self, digest: impl Fn(LeaseId) -> ResultDigest) {
        while let Some((session, lease)) = self.reveals.pop() {
            let (digest, payload) = (digest(lease), self.payload());
            let (odd, agrees) = (Oddness::Plain, true);
            self.tell(Event::Revealed { session, lease, digest, payload, bytes: 100, odd, agrees });
        }
    }

    pub fn state(&self) -> JobState {
        self.engine.job(JOB).expect("it was added").state
    }

    pub fn is_backing_off(&self, contributor: u64) -> bool {
        let sessions = self.engine.sessions();
        let of = sessions.iter().find(|view| view.session == Self::session(contributor));
        matches!(of.expect("it is open").status, SessionStatus::BackingOff { .. })
    }
}
