//! The simulation: one queue of happenings, the real engine, the auditor.

use crate::adversary::Truth;
use crate::agenda::Agenda;
use crate::auditor::Auditor;
use crate::faults::{CHECKS, Faults, MS, Micros, SECOND};
use crate::history::History;
use crate::ids::IdMap;
use crate::kernel::Value;
use crate::network::{Lane, Network};
use crate::node::{Node, NodeSpec, Up};
use crate::relaxed::Bounds;
use crate::rng::Rng;
use crate::shell::{Shell, Story};
use raven_engine::{
    Check, EffectError, EffectId, Engine, EngineConfig, Event, JobPlan, JobState, Outbound,
    Outcome as Answer, Record, ResumePoint, Stats, Terms,
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

    /// A shell that shuts down: cancel, close, let effects end.
    fn wind_down(&mut self) {
        let open: Vec<JobId> = self
            .engine
            .jobs()
            .iter()
            .filter(|job| !job.state.is_end())
            .map(|job| job.job)
            .collect();
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
    }

    fn finish(mut self) -> Outcome {
        let ended_us = self.now;
        for job in self.engine.jobs() {
            // A job that has not ended says why, or is being worked on.
            self.auditor.excuse(&job);
        }
        let before: BTreeMap<JobId, JobState> =
            self.engine.jobs().into_iter().map(|job| (job.job, job.state)).collect();
        self.wind_down();
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
