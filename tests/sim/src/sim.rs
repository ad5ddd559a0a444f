//! The simulation: one queue of happenings, the real engine, the auditor.

use crate::adversary::{Cost, Truth};
use crate::agenda::Agenda;
use crate::auditor::Auditor;
use crate::faults::{CHECKS, Faults, MS, Micros, SECOND};
use crate::history::History;
use crate::ids::IdMap;
use crate::kernel::{Value, digest_of, is_product};
use crate::network::{Lane, Network};
use crate::node::{Node, NodeSpec, Up};
use crate::relaxed::{Bounds, PROBED_OFF, Vector};
use crate::rng::Rng;
use crate::shell::{Shell, Story};
use raven_engine::{
    Check, Effect, EffectError, EffectId, Engine, EngineConfig, Event, JobPlan, JobState, Oddness,
    Outbound, Outcome as Answer, PayloadId, Record, ResumePoint, Stats, Terms, TreePart, Trust,
    Work,
};
use raven_protocol::{JobId, LeaseId, ResultDigest, SessionId, TaskId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What of its norm an honest GPU's result is off at most.
pub(crate) const CEILING: f64 = 0.02;

/// A network, its jobs and its faults.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub nodes: Vec<NodeSpec>,
    /// When each job is posted, and what its numbers do.
    pub jobs: Vec<(Micros, JobPlan, Story)>,
    /// Jobs that go on where an earlier coordinator left them.
    pub resumes: BTreeMap<JobId, ResumePoint>,
    /// Terms of the jobs that have any.
    pub terms: BTreeMap<JobId, Terms>,
    /// When jobs are cancelled.
    pub cancels: Vec<(Micros, JobId)>,
    pub faults: Faults,
    pub network: Network,
    pub engine: EngineConfig,
    /// When the simulation stops, if the jobs have not ended before.
    pub until_us: Micros,
    /// Whether a digest of all effects is kept.
    pub keeps_history: bool,
}

impl Scenario {
    /// No jobs, no contributors, no faults.
    pub fn new(seed: u64) -> Self {
        Scenario {
            seed,
            nodes: Vec::new(),
            jobs: Vec::new(),
            cancels: Vec::new(),
            resumes: BTreeMap::new(),
            terms: BTreeMap::new(),
            faults: Faults::NONE,
            network: Network::TEN_GIGABIT,
            engine: EngineConfig { seed, ..EngineConfig::default() },
            until_us: 3_600 * SECOND,
            keeps_history: false,
        }
    }

    /// Runs it to its end and checks that nothing is left over.
    pub fn run(self) -> Outcome {
        Sim::new(self).run()
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobOutcome {
    pub state: JobState,
    pub steps: u32,
    /// Value of the last durable state.
    pub weights: Option<Value>,
    /// From being posted to being over, or to the end of the simulation.
    pub took_us: Micros,
    pub flops: u64,
    /// When each optimizer step was to be made durable.
    pub step_times: Vec<Micros>,
}

/// What came of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub jobs: BTreeMap<JobId, JobOutcome>,
    /// What was made durable, in order.
    pub records: BTreeMap<JobId, Vec<Record>>,
    pub stats: Stats,
    pub ended_us: Micros,
    /// Events that the engine handled, and the time it took for them.
    pub events: u64,
    pub engine_time: Duration,
    /// What the whole simulation took, its audit included.
    pub time: Duration,
    /// Of all effects, where one was asked for.
    pub history: History,
    /// Accepted tasks by node.
    pub tasks_by_node: Vec<u64>,
    /// The shortest lease that each node was given.
    pub lease_ms_of: Vec<u64>,
    /// What was true.
    pub truth: Truth,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A message reaches the coordinator's own link.
    Ingress {
        session: SessionId,
        message: Up,
        bytes: u64,
    },
    Up {
        session: SessionId,
        message: Up,
    },
    Down {
        node: usize,
        session: SessionId,
        message: Outbound,
    },
    Fetched {
        node: usize,
        session: SessionId,
        lease: LeaseId,
    },
    Done {
        node: usize,
        session: SessionId,
        lease: LeaseId,
    },
    Effect {
        effect: EffectId,
        answer: Result<Answer, EffectError>,
    },
    /// An answer was looked at, and is told.
    Checked {
        session: SessionId,
        message: Up,
        check: Check,
    },
    /// The coordinator notices that a connection is dead.
    Noticed {
        session: SessionId,
    },
    Join {
        node: usize,
    },
    Crash {
        node: usize,
    },
    Freeze {
        node: usize,
        length_us: Option<Micros>,
    },
    Thaw {
        node: usize,
    },
    Pace {
        node: usize,
    },
    AddJob {
        index: usize,
    },
    CancelJob {
        job: JobId,
    },
}

/// For how long this thread has run: what else the machine does is not counted.
/// Where the system does not tell, the time since the first call.
fn thread_time() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = stat.and_then(|stat| stat.split(' ').next()?.parse().ok());
    ran.map_or_else(|| FIRST.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// A running simulation.
#[derive(Debug)]
pub struct Sim {
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    pub(crate) now: Micros,
    pub(crate) agenda: Agenda,
    pub(crate) engine: Engine,
    pub(crate) auditor: Auditor,
    pub(crate) shell: Shell,
    pub(crate) nodes: Vec<Node>,
    /// Which node a session is of, while the coordinator has it open.
    pub(crate) sessions: IdMap<SessionId, usize>,
    pub(crate) next_session: u64,
    /// What sessions have sent that are not read while an answer of theirs is checked.
    pub(crate) unread: BTreeMap<SessionId, VecDeque<Up>>,
    /// Draws which answers are checked for long.
    pub(crate) checks: Rng,
    pub(crate) out: Lane,
    pub(crate) into: Lane,
    /// When the master will have reduced what it has of results.
    pub(crate) reducing_until: Micros,
    /// A lease to answer wrongly.
    pub(crate) some_lease: Option<(LeaseId, ResultDigest)>,
    /// What each lease was of, and whose.
    pub(crate) leased: IdMap<LeaseId, (TaskId, SessionId)>,
    pub(crate) ended: BTreeMap<JobId, Micros>,
    pub(crate) step_times: BTreeMap<JobId, Vec<Micros>>,
    pub(crate) events: u64,
    pub(crate) engine_time: Duration,
    pub(crate) began: Duration,
    pub(crate) history: History,
    pub(crate) tasks_by_node: Vec<u64>,
    pub(crate) lease_ms_of: Vec<u64>,
    pub(crate) jobs_to_come: usize,
    /// What the engine does not know.
    pub(crate) truth: Truth,
}

impl Sim {
    pub fn new(scenario: Scenario) -> Self {
        let mut sim = Sim {
            rng: Rng::new(scenario.seed),
            now: 0,
            agenda: Agenda::default(),
            engine: Engine::new(scenario.engine.clone()),
            auditor: Auditor::new(scenario.engine.clone()),
            shell: Shell::default(),
            nodes: Vec::new(),
            sessions: IdMap::default(),
            next_session: 1,
            unread: BTreeMap::new(),
            checks: Rng::new(scenario.seed).fork(CHECKS),
            out: Lane::default(),
            into: Lane::default(),
            reducing_until: 0,
            some_lease: None,
            leased: IdMap::default(),
            ended: BTreeMap::new(),
            step_times: BTreeMap::new(),
            events: 0,
            engine_time: Duration::ZERO,
            began: thread_time(),
            history: History::default(),
            tasks_by_node: vec![0; scenario.nodes.len()],
            lease_ms_of: vec![u64::MAX; scenario.nodes.len()],
            jobs_to_come: scenario.jobs.len(),
            truth: Truth::default(),
            scenario,
        };
        for index in 0..sim.scenario.nodes.len() {
            let spec = sim.scenario.nodes[index];
            sim.nodes.push(Node::new(index, spec));
            sim.at(spec.joins_at, Happening::Join { node: index });
            if let Some(at) = spec.freezes_at {
                sim.at(at, Happening::Freeze { node: index, length_us: None });
            }
        }
        for index in 0..sim.scenario.jobs.len() {
            let (at, plan, story) = sim.scenario.jobs[index].clone();
            sim.shell.stories.insert(plan.job, story);
            sim.at(at, Happening::AddJob { index });
        }
        for (at, job) in sim.scenario.cancels.clone() {
            sim.at(at, Happening::CancelJob { job });
        }
        sim
    }

    pub(crate) fn at(&mut self, at: Micros, happening: Happening) {
        self.agenda.plan(at.max(self.now), happening);
    }

    pub(crate) fn after(&mut self, wait: Micros, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    /// Runs until the jobs have ended or time is up, then winds down.
    pub fn run(mut self) -> Outcome {
        while self.jobs_to_come > 0 || self.engine.phases().next().is_some() {
            if !self.step() {
                break;
            }
        }
        self.finish()
    }

    /// The next thing; false where there is none or time is up.
    fn step(&mut self) -> bool {
        let next = self.agenda.next();
        let timeout = self.engine.next_timeout().map(|ms| ms * MS);
        let at = match (next, timeout) {
            (None, None) => return false,
            (Some(at), None) | (None, Some(at)) => at,
            (Some(a), Some(b)) => a.min(b),
        };
        if at > self.scenario.until_us {
            return false;
        }
        self.now = self.now.max(at);
        if next.is_none_or(|next| next > at) {
            self.tell(Event::Tick);
            return true;
        }
        if let Some((_, happening)) = self.agenda.pop() {
            self.happen(happening);
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ingress { session, message, bytes } => {
                let rate = self.scenario.network.in_bytes_per_s;
                let arrives = self.into.send(self.now, bytes, rate);
                self.at(arrives, Happening::Up { session, message });
            }
            Happening::Up { session, message } => self.read(session, message),
            Happening::Checked { session, message, check } => self.checked(session, message, check),
            Happening::Down { node, session, .. }
            | Happening::Fetched { node, session, .. }
            | Happening::Done { node, session, .. } => {
                let connection = self.nodes[node].connection.as_ref();
                if connection.is_none_or(|connection| connection.session != session) {
                    return;
                }
                if self.nodes[node].frozen {
                    self.nodes[node].deferred.push(happening);
                    return;
                }
                match happening {
                    Happening::Down { message, .. } => self.receive(node, message),
                    Happening::Fetched { lease, .. } => self.fetched(node, lease),
                    Happening::Done { lease, .. } => self.done(node, lease),
                    _ => {}
                }
            }
            Happening::Effect { effect, answer } => {
                self.tell(Event::EffectDone { effect, outcome: answer });
            }
            Happening::Noticed { session } => {
                self.unread.remove(&session);
                if self.sessions.remove(&session).is_some() {
                    self.tell(Event::SessionClosed { session });
                }
            }
            Happening::Join { node } => self.join(node),
            Happening::Crash { node } => self.disconnect(node, true),
            Happening::Freeze { node, length_us } => {
                self.nodes[node].frozen = true;
                if let Some(length) = length_us {
                    self.after(length, Happening::Thaw { node });
                }
            }
            Happening::Thaw { node } => {
                self.nodes[node].frozen = false;
                for deferred in std::mem::take(&mut self.nodes[node].deferred) {
                    self.at(self.now, deferred);
                }
                let mean = self.scenario.faults.freeze_mean_us;
                self.plan_freeze(node, mean);
            }
            Happening::Pace { node } => self.pace(node),
            Happening::AddJob { index } => {
                self.jobs_to_come -= 1;
                let (_, plan, _) = self.scenario.jobs[index].clone();
                self.shell.kernel.add(plan.clone());
                let resume = self.scenario.resumes.get(&plan.job).cloned();
                if let Some(resume) = &resume {
                    self.shell.states.insert((plan.job, resume.weights), 0);
                    self.auditor.resumed(plan.job, resume);
                }
                let terms = self.scenario.terms.get(&plan.job).copied().unwrap_or_default();
                self.tell(Event::JobAdded { plan: Box::new(plan), resume, terms: Box::new(terms) });
            }
            Happening::CancelJob { job } => self.tell(Event::JobCancelled { job }),
        }
    }

    /// Tells the engine and does what it asks for.
    pub(crate) fn tell(&mut self, event: Event) {
        let now = self.now / MS;
        self.auditor.event(&event);
        let before = Instant::now();
        self.engine.handle(now, event);
        self.engine_time += before.elapsed();
        self.events += 1;
        while let Some(effect) = self.engine.poll_effect() {
            if self.scenario.keeps_history {
                self.history.add(now, &effect);
            }
            self.auditor.effect(&effect, &mut self.shell);
            self.execute(effect);
        }
        self.auditor.check(&self.engine, now);
    }

    fn execute(&mut self, effect: Effect) {
        if let Effect::Combine { job, round, stage, parts, .. } = &effect {
            self.compare_parts(*job, *round, *stage, parts);
        }
        if let Some((id, answer)) = self.shell.run(&effect) {
            let faults = self.scenario.faults;
            // A step waits for the results that are still being reduced.
            let reducing = match &effect {
                Effect::Step { .. } => self.reducing_until.saturating_sub(self.now),
                _ => 0,
            };
            let wait = self.rng.between(faults.effect_us_min, faults.effect_us_max) + reducing;
            let is_down = self.store_is_down()
                && matches!(effect, Effect::Persist { .. } | Effect::Show { .. });
            let answer = if self.rng.chance(faults.effect_failure) || is_down {
                if let Answer::Judged { payload, .. } = answer {
                    self.shell.release(payload);
                }
                let job = match &effect {
                    Effect::InitState { job, .. } | Effect::Step { job, .. } => Some(*job),
                    _ => None,
                };
                if let (Some(job), Answer::StateReady { state } | Answer::Stepped { state, .. }) =
                    (job, answer)
                {
                    self.shell.states.remove(&(job, state));
                }
                Err(EffectError { stage: "store", reason: "the disk is full".into() })
            } else {
                Ok(answer)
            };
            self.auditor.will_answer(id, &answer);
            self.after(wait, Happening::Effect { effect: id, answer });
        }
        match effect {
            Effect::Send { session, message } => self.send_down(session, message),
            Effect::Close { session, .. } => {
                if let Some(node) = self.sessions.remove(&session) {
                    self.disconnect_from(node, session);
                }
                // The socket's end is reported like any other.
                self.at(self.now, Happening::Noticed { session });
            }
            Effect::Fold { job, round, part, .. } => {
                self.compare(job, round, part);
                let begin = self.reducing_until.max(self.now);
                self.reducing_until = begin + self.scenario.faults.reduce_us;
            }
            Effect::RolledBack { job, round } => {
                let is_undone = |task: &TaskId| task.job == job && task.round >= round;
                self.truth.standing.retain(|task| !is_undone(task));
                self.truth.off.retain(|task, _| !is_undone(task));
            }
            Effect::Trust { identity, trust } => {
                if trust == Trust::Excluded {
                    let truth = &mut self.truth;
                    let first_lie = truth.first_lies.get(&identity.contributor);
                    if truth.excluded.insert(identity.contributor)
                        && let Some(first_lie) = first_lie
                    {
                        truth.exclusions.push(self.now - first_lie);
                    }
                    if !truth.cheats.contains(&identity.contributor) {
                        truth.wronged.insert(identity.contributor);
                    }
                }
                self.truth.trust.insert(identity, trust);
            }
            Effect::ReleasePayloads { payloads } => {
                for payload in payloads {
                    self.shell.release(payload);
                }
            }
            Effect::ReleaseState { job, state } => {
                self.shell.states.remove(&(job, state));
            }
            Effect::Persist { record, .. } => {
                if record.train.is_some() {
                    let stats = self.engine.counts();
                    let (refereed, accepted) = (stats.referee_flops, stats.flops_accepted);
                    let executed = self.truth.executed;
                    self.truth.costs.push(Cost { executed, refereed, accepted });
                    self.step_times.entry(record.job).or_default().push(self.now);
                }
                if record.phase.is_end() {
                    self.ended.insert(record.job, self.now);
                }
                self.shell.records.entry(record.job).or_default().push(*record);
            }
            _ => {}
        }
    }

    /// Counts the results of a pushed stage that are not what its parts yield.
    fn compare_parts(&mut self, job: JobId, round: u32, stage: u32, parts: &[PayloadId]) {
        for (part, payload) in (0..).zip(parts) {
            let task = TaskId { job, round, stage, part };
            let Some(work @ Work::Part { .. }) = self.truth.work.get(&task).cloned() else {
                continue;
            };
            let truth = self.shell.kernel.run(task, &work);
            self.count(task, *payload, truth);
        }
    }

    /// Counts a result that is combined and is not what its run yields.
    fn compare(&mut self, job: JobId, round: u32, part: TreePart) {
        let task = TaskId { job, round, stage: 0, part: part.start };
        let Some(&Work::Replica { state, .. }) = self.truth.work.get(&task) else { return };
        let work = Work::Replica { state, start: part.start, count: part.count };
        let truth = self.shell.kernel.run(task, &work);
        self.count(task, part.payload, truth);
    }

    fn count(&mut self, task: TaskId, payload: PayloadId, truth: Value) {
        let combined = self.shell.payloads.get(&payload).copied();
        let vector = self.shell.vectors.get(&payload);
        let is_far = |vector: &Vector| vector.off(truth) > CEILING;
        let is_false =
            |vector: &Vector| self.truth.false_results.contains_key(&(task, vector.digest(task)));
        // An honest one at a kink is what an honest network comes to.
        let is_honest = vector.is_none_or(|vector| !is_far(vector) || !is_false(vector));
        if let Some(vector) = vector.filter(|vector| !is_far(vector) || is_false(vector)) {
            self.truth.off.insert(task, vector.off(truth));
        }
        if combined != Some(truth) || !is_honest {
            self.truth.combined += 1;
            let digest = match (vector, combined) {
                (Some(vector), _) => Some(vector.digest(task)),
                (None, combined) => combined.map(|value| digest_of(task, value)),
            };
            let liars = digest.and_then(|digest| self.truth.false_results.get(&(task, digest)));
            for &who in liars.into_iter().flatten() {
                *self.truth.combined_of.entry(who).or_default() += 1;
            }
            self.truth.standing.insert(task);
        }
    }

    fn store_is_down(&self) -> bool {
        let down = self.scenario.faults.store_down;
        down.is_some_and(|(from, to)| (from..to).contains(&self.now))
    }

    fn send_down(&mut self, session: SessionId, message: Outbound) {
        if let Outbound::Task { lease, task, lease_ms, work, .. } = &message {
            self.leased.insert(*lease, (*task, session));
            self.truth.work.insert(*task, work.clone());
            if let Some(&node) = self.sessions.get(&session) {
                self.lease_ms_of[node] = self.lease_ms_of[node].min(*lease_ms);
            }
        }
        if let Outbound::Project { lease, key, .. } = &message {
            let (task, _) = self.leased[lease];
            let before = self.shell.projecting.insert(*lease, (task, *key));
            assert!(before.is_none(), "{lease} is asked again before it has answered");
        }
        let Some(&node) = self.sessions.get(&session) else { return };
        let bytes = match &message {
            Outbound::Graph { .. } => 20_000,
            Outbound::Weights { job, .. } => self.shell.kernel.plan(*job).weights_bytes,
            Outbound::Task { task, work, .. } => 600 + self.operand_bytes(task.job, work),
            Outbound::Project { .. } | Outbound::Reveal { .. } | Outbound::Cancel { .. } => 100,
            Outbound::Drop { blobs, .. } => 100 + 70 * blobs.len() as u64,
        };
        if self.rng.chance(self.scenario.faults.message_loss) {
            self.disconnect(node, true);
            return;
        }
        let Some(arrives) = self.down_time(node, session, bytes) else { return };
        self.at(arrives, Happening::Down { node, session, message });
    }

    fn operand_bytes(&self, job: JobId, work: &Work) -> u64 {
        let &Work::Part { stage, part, .. } = work else { return 0 };
        let raven_engine::Placement::Master { stages, .. } = &self.shell.kernel.plan(job).placement
        else {
            return 0;
        };
        match &stages[stage as usize] {
            raven_engine::StagePlan::Pushed { parts } => parts[part as usize].operand_bytes,
            raven_engine::StagePlan::Local => 0,
        }
    }

    /// When `bytes` have crossed from the coordinator to `node`.
    pub(crate) fn down_time(
        &mut self,
        node: usize,
        session: SessionId,
        bytes: u64,
    ) -> Option<Micros> {
        let left = self.out.send(self.now, bytes, self.scenario.network.out_bytes_per_s);
        let link = self.nodes[node].spec.link;
        let connection = self.nodes[node].connection.as_mut()?;
        if connection.session != session {
            return None;
        }
        Some(connection.down.send(left + link.latency_us, bytes, link.down_bytes_per_s))
    }

    /// A contributor's message has arrived.
    pub(crate) fn arrive(&mut self, session: SessionId, message: Up) {
        let Some(&node) = self.sessions.get(&session) else { return };
        let event = match message {
            Up::Commit { lease, digest } => {
                self.some_lease = Some((lease, digest));
                Event::Committed { session, lease, digest }
            }
            Up::Projected { lease, projections } => {
                let bytes = 8 * projections.len() as u64;
                let Some((projection, agrees)) = self.shell.project(lease, projections) else {
                    return;
                };
                Event::Projected { session, lease, projection, bytes, agrees }
            }
            Up::Result { lease, vector: Some(vector), .. }
                if !self.shell.is_projected(lease, &vector) =>
            {
                Event::Misprojected { session, lease }
            }
            Up::Result { lease, value, vector, bytes } => {
                // The shell hashes what came under the task of the lease that it names.
                let leased = self.leased.get(&lease).copied();
                let task = leased.map(|(task, _)| task);
                let digest = task.map_or(ResultDigest([0; 32]), |task| {
                    vector.map_or_else(|| digest_of(task, value), |vector| vector.digest(task))
                });
                let odd = task.map_or(Oddness::Plain, |task| self.probe(task, value, vector));
                let payload = self.shell.keep(value);
                if let Some(vector) = vector {
                    self.shell.vectors.insert(payload, vector);
                }
                // Of another's lease the socket's own table knows nothing.
                let is_own = leased.is_some_and(|(_, holder)| holder == session);
                let shown = task.filter(|_| is_own).map(|task| {
                    let vector = vector.unwrap_or_else(|| Vector::of(value));
                    self.shell.show(payload, task, vector)
                });
                let agrees = shown.unwrap_or(true);
                Event::Revealed { session, lease, digest, payload, bytes, odd, agrees }
            }
            Up::Refuse { lease, reason } => Event::Refused { session, lease, reason },
            Up::Pace { share, workers } => Event::PaceChanged { session, share, workers },
            Up::Pause => Event::Paused { session },
            Up::Resume => Event::Resumed { session },
        };
        let accepted = self.engine.counts().tasks_accepted;
        self.tell(event);
        self.tasks_by_node[node] += self.engine.counts().tasks_accepted - accepted;
    }

    /// What probes of a result find, where it is a product.
    fn probe(&mut self, task: TaskId, value: Value, vector: Option<Vector>) -> Oddness {
        let Some(work) = self.truth.work.get(&task).filter(|work| is_product(work)) else {
            return Oddness::Plain;
        };
        let truth = self.shell.kernel.run(task, work);
        // Probes see whatever is more than honest round-off.
        let is_near = vector.is_none_or(|vector| vector.off(truth) <= PROBED_OFF);
        if value == truth && is_near { Oddness::Probed } else { Oddness::Faulty }
    }

    fn finish(mut self) -> Outcome {
        let ended_us = self.now;
        for job in self.engine.jobs() {
            // A job that has not ended says why, or is being worked on.
            self.auditor.excuse(&job);
        }
        // A shell that shuts down: cancel, close, let effects end.
        let open: Vec<JobId> = self
            .engine
            .jobs()
            .iter()
            .filter(|job| !job.state.is_end())
            .map(|job| job.job)
            .collect();
        let before: BTreeMap<JobId, JobState> =
            self.engine.jobs().into_iter().map(|job| (job.job, job.state)).collect();
        for job in open {
            self.tell(Event::JobCancelled { job });
        }
        let sessions: BTreeSet<SessionId> = self.sessions.drain().map(|(id, _)| id).collect();
        for session in sessions {
            self.tell(Event::SessionClosed { session });
        }
        // Whatever was broken is mended, so that every end becomes durable.
        self.scenario.faults = Faults::NONE;
        loop {
            if let Some((at, happening)) = self.agenda.pop() {
                self.now = self.now.max(at);
                if let Happening::Effect { effect, answer } = happening {
                    self.tell(Event::EffectDone { effect, outcome: answer });
                }
            } else if let Some(timeout) = self.engine.next_timeout() {
                self.now = self.now.max(timeout * MS);
                self.tell(Event::Tick);
            } else {
                break;
            }
        }
        self.auditor.finish(&self.engine, &self.shell);
        let jobs = self.scenario.jobs.iter().filter_map(|(at, plan, _)| {
            let view = self.engine.job(plan.job)?;
            let state = before.get(&plan.job).cloned().unwrap_or(view.state);
            let records = self.shell.records.get(&plan.job);
            let weights = records.and_then(|records| records.last()).and_then(|last| last.weights);
            let took = self.ended.get(&plan.job).copied().unwrap_or(ended_us).min(ended_us) - at;
            Some((
                plan.job,
                JobOutcome {
                    state,
                    steps: view.step,
                    weights: weights.map(|state| {
                        Value::from_le_bytes(state.0[..8].try_into().expect("eight bytes"))
                    }),
                    took_us: took,
                    flops: view.flops_accepted,
                    step_times: self.step_times.get(&plan.job).cloned().unwrap_or_default(),
                },
            ))
        });
        Outcome {
            jobs: jobs.collect(),
            records: self.shell.records,
            stats: self.engine.stats(self.now / MS),
            ended_us,
            events: self.events,
            engine_time: self.engine_time,
            time: thread_time().saturating_sub(self.began),
            history: self.history,
            tasks_by_node: self.tasks_by_node,
            lease_ms_of: self.lease_ms_of,
            truth: Truth {
                tolerance: self.shell.bounds.values().map(Bounds::relative).fold(0.0, f64::max),
                ..self.truth
            },
        }
    }
}
