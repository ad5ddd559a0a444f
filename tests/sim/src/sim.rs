//! The simulation: one queue of happenings, the real engine, the auditor.

use crate::auditor::Auditor;
use crate::faults::{Faults, MS, Micros, SECOND};
use crate::kernel::{Value, digest_of};
use crate::network::{Lane, Network};
use crate::node::{Assigned, Connection, Kept, Node, NodeSpec, Up};
use crate::plans::KERNEL;
use crate::rng::Rng;
use crate::shell::{Shell, Story};
use raven_engine::{
    Effect, EffectError, EffectId, Engine, EngineConfig, Event, JobPlan, JobState, NetworkPrefix,
    Outbound, Outcome as Answer, SessionProfile, SiteId, Stats, Work,
};
use raven_protocol::{
    DeviceClass, JobId, LeaseId, NumericClass, RefuseReason, ResultDigest, SessionId, TaskId,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

/// A network, its jobs and its faults.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub nodes: Vec<NodeSpec>,
    /// When each job is posted, and what its numbers do.
    pub jobs: Vec<(Micros, JobPlan, Story)>,
    /// When jobs are cancelled.
    pub cancels: Vec<(Micros, JobId)>,
    pub faults: Faults,
    pub network: Network,
    pub engine: EngineConfig,
    /// When the simulation stops, if the jobs have not ended before.
    pub until_us: Micros,
}

impl Scenario {
    /// No jobs, no contributors, no faults.
    pub fn new(seed: u64) -> Self {
        Scenario {
            seed,
            nodes: Vec::new(),
            jobs: Vec::new(),
            cancels: Vec::new(),
            faults: Faults::NONE,
            network: Network::TEN_GIGABIT,
            engine: EngineConfig { seed, ..EngineConfig::default() },
            until_us: 3_600 * SECOND,
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
    pub stats: Stats,
    pub ended_us: Micros,
    /// Events that the engine handled, and the time it took for them.
    pub events: u64,
    pub engine_time: Duration,
    /// Accepted tasks by node.
    pub tasks_by_node: Vec<u64>,
    /// The shortest lease that each node was given.
    pub lease_ms_of: Vec<u64>,
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

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Micros,
    order: u64,
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A running simulation.
#[derive(Debug)]
pub struct Sim {
    scenario: Scenario,
    rng: Rng,
    now: Micros,
    queue: BinaryHeap<Reverse<Entry>>,
    happenings: BTreeMap<u64, Happening>,
    order: u64,
    engine: Engine,
    auditor: Auditor,
    shell: Shell,
    nodes: Vec<Node>,
    /// Which node a session is of, while the coordinator has it open.
    sessions: BTreeMap<SessionId, usize>,
    next_session: u64,
    out: Lane,
    into: Lane,
    /// A lease to answer wrongly.
    some_lease: Option<(LeaseId, ResultDigest)>,
    lease_tasks: BTreeMap<LeaseId, TaskId>,
    ended: BTreeMap<JobId, Micros>,
    step_times: BTreeMap<JobId, Vec<Micros>>,
    events: u64,
    engine_time: Duration,
    tasks_by_node: Vec<u64>,
    lease_ms_of: Vec<u64>,
    jobs_to_come: usize,
}

impl Sim {
    pub fn new(scenario: Scenario) -> Self {
        let mut sim = Sim {
            rng: Rng::new(scenario.seed),
            now: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            order: 0,
            engine: Engine::new(scenario.engine.clone()),
            auditor: Auditor::new(scenario.engine.clone()),
            shell: Shell::default(),
            nodes: Vec::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            out: Lane::default(),
            into: Lane::default(),
            some_lease: None,
            lease_tasks: BTreeMap::new(),
            ended: BTreeMap::new(),
            step_times: BTreeMap::new(),
            events: 0,
            engine_time: Duration::ZERO,
            tasks_by_node: vec![0; scenario.nodes.len()],
            lease_ms_of: vec![u64::MAX; scenario.nodes.len()],
            jobs_to_come: scenario.jobs.len(),
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

    fn at(&mut self, at: Micros, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), order: self.order }));
        self.happenings.insert(self.order, happening);
    }

    fn after(&mut self, wait: Micros, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    /// Runs until the jobs have ended or time is up, then winds down.
    pub fn run(mut self) -> Outcome {
        while self.jobs_to_come > 0 || self.engine.stats(0).jobs_open > 0 {
            if !self.step() {
                break;
            }
        }
        self.finish()
    }

    /// The next thing; false where there is none or time is up.
    fn step(&mut self) -> bool {
        let next = self.queue.peek().map(|Reverse(entry)| entry.at);
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
        if let Some(Reverse(entry)) = self.queue.pop() {
            if let Some(happening) = self.happenings.remove(&entry.order) {
                self.happen(happening);
            }
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
            Happening::Up { session, message } => self.arrive(session, message),
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
                self.tell(Event::JobAdded { plan: Box::new(plan), resume: None });
            }
            Happening::CancelJob { job } => self.tell(Event::JobCancelled { job }),
        }
    }

    // ---- the coordinator's side ----

    /// Tells the engine and does what it asks for.
    fn tell(&mut self, event: Event) {
        let now = self.now / MS;
        self.auditor.event(&event);
        let before = Instant::now();
        self.engine.handle(now, event);
        self.engine_time += before.elapsed();
        self.events += 1;
        while let Some(effect) = self.engine.poll_effect() {
            self.auditor.effect(&effect, &mut self.shell);
            self.execute(effect);
        }
        self.auditor.check(&self.engine, now);
    }

    fn execute(&mut self, effect: Effect) {
        if std::env::var_os("RAVEN_SIM_TRACE").is_some() {
            let text = format!("{effect:?}");
            println!("{:9.3} {}", self.now as f64 / 1e6, &text[..text.len().min(260)]);
        }
        if let Some((id, answer)) = self.shell.run(&effect) {
            let faults = self.scenario.faults;
            let wait = self.rng.between(faults.effect_us_min, faults.effect_us_max);
            let answer = if self.rng.chance(faults.effect_failure) {
                if let Answer::StateReady { state } | Answer::Stepped { state, .. } = answer {
                    self.shell.states.remove(&state);
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
            Effect::ReleasePayloads { payloads } => {
                for payload in payloads {
                    self.shell.payloads.remove(&payload);
                }
            }
            Effect::ReleaseState { state, .. } => {
                self.shell.states.remove(&state);
            }
            Effect::Persist { record, .. } => {
                if record.train.is_some() {
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

    fn send_down(&mut self, session: SessionId, message: Outbound) {
        if let Outbound::Task { lease, task, lease_ms, .. } = &message {
            self.lease_tasks.insert(*lease, *task);
            if let Some(&node) = self.sessions.get(&session) {
                self.lease_ms_of[node] = self.lease_ms_of[node].min(*lease_ms);
            }
        }
        let Some(&node) = self.sessions.get(&session) else { return };
        let bytes = match &message {
            Outbound::Graph { .. } => 20_000,
            Outbound::Weights { job, .. } => self.shell.kernel.plan(*job).weights_bytes,
            Outbound::Task { task, work, .. } => 600 + self.operand_bytes(task.job, work),
            Outbound::Reveal { .. } | Outbound::Cancel { .. } => 100,
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
    fn down_time(&mut self, node: usize, session: SessionId, bytes: u64) -> Option<Micros> {
        let left = self.out.send(self.now, bytes, self.scenario.network.out_bytes_per_s);
        let link = self.nodes[node].spec.link;
        let connection = self.nodes[node].connection.as_mut()?;
        if connection.session != session {
            return None;
        }
        Some(connection.down.send(left + link.latency_us, bytes, link.down_bytes_per_s))
    }

    /// A contributor's message has arrived.
    fn arrive(&mut self, session: SessionId, message: Up) {
        let Some(&node) = self.sessions.get(&session) else { return };
        let event = match message {
            Up::Commit { lease, digest } => {
                self.some_lease = Some((lease, digest));
                Event::Committed { session, lease, digest }
            }
            Up::Result { lease, value, bytes } => {
                // The shell hashes what came under the task of the lease that it names.
                let task = self.lease_tasks.get(&lease);
                let digest = task.map_or(ResultDigest([0; 32]), |&task| digest_of(task, value));
                let payload = self.shell.keep(value);
                Event::Revealed { session, lease, digest, payload, bytes }
            }
            Up::Refuse { lease, reason } => Event::Refused { session, lease, reason },
            Up::Pace { share, workers } => Event::PaceChanged { session, share, workers },
            Up::Pause => Event::Paused { session },
            Up::Resume => Event::Resumed { session },
        };
        let accepted = self.engine.stats(0).tasks_accepted;
        self.tell(event);
        self.tasks_by_node[node] += self.engine.stats(0).tasks_accepted - accepted;
    }

    // ---- the contributors' side ----

    fn join(&mut self, node: usize) {
        if self.nodes[node].gone || self.nodes[node].connection.is_some() {
            return;
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let faults = self.scenario.faults;
        let lie = 1.0 + (faults.claim_factor - 1.0) * self.rng.unit();
        let lie = if self.rng.chance(0.5) { lie } else { 1.0 / lie };
        let entry = &mut self.nodes[node];
        entry.connection = Some(Connection::new(session));
        let profile = SessionProfile {
            contributor: entry.contributor,
            site: Some(SiteId(node as u64 % 3)),
            prefix: NetworkPrefix([node as u8; 16]),
            device: DeviceClass::Desktop,
            numeric: NumericClass::Cpu { kernel: KERNEL },
            flops_per_s: (entry.spec.flops_per_s as f64 * lie) as u64,
            share: entry.share,
            workers: entry.workers,
            memory_bytes: entry.spec.memory_bytes,
        };
        self.sessions.insert(session, node);
        self.plan_freeze(node, faults.freeze_mean_us);
        if faults.crash_mean_us > 0 {
            let wait = self.rng.wait(faults.crash_mean_us);
            self.after(wait, Happening::Crash { node });
        }
        if faults.pace_mean_us > 0 {
            let wait = self.rng.wait(faults.pace_mean_us);
            self.after(wait, Happening::Pace { node });
        }
        self.tell(Event::SessionOpened { session, profile });
    }

    fn plan_freeze(&mut self, node: usize, mean: Micros) {
        if mean > 0 {
            let wait = self.rng.wait(mean);
            let length_us = Some(self.rng.wait(self.scenario.faults.freeze_length_us));
            self.after(wait, Happening::Freeze { node, length_us });
        }
    }

    /// The contributor's connection breaks; the coordinator notices later.
    fn disconnect(&mut self, node: usize, may_leave: bool) {
        let Some(connection) = &self.nodes[node].connection else { return };
        let session = connection.session;
        let wait = self.rng.wait(self.scenario.faults.notice_mean_us);
        self.after(wait, Happening::Noticed { session });
        if may_leave && self.rng.chance(self.scenario.faults.leave_for_good) {
            self.nodes[node].gone = true;
        }
        self.disconnect_from(node, session);
    }

    fn disconnect_from(&mut self, node: usize, session: SessionId) {
        let entry = &mut self.nodes[node];
        if entry.connection.as_ref().is_none_or(|connection| connection.session != session) {
            return;
        }
        entry.connection = None;
        entry.deferred.clear();
        let wait = self.rng.wait(self.scenario.faults.rejoin_mean_us.max(MS));
        self.after(wait, Happening::Join { node });
    }

    fn send_up(&mut self, node: usize, message: Up) {
        let bytes = match &message {
            Up::Result { bytes, .. } => *bytes + 300,
            _ => 200,
        };
        if self.rng.chance(self.scenario.faults.message_loss) {
            self.disconnect(node, true);
            return;
        }
        let link = self.nodes[node].spec.link;
        let Some(connection) = &mut self.nodes[node].connection else { return };
        let session = connection.session;
        let left = connection.up.send(self.now, bytes, link.up_bytes_per_s) + link.latency_us;
        self.at(left, Happening::Ingress { session, message, bytes });
    }

    fn receive(&mut self, node: usize, message: Outbound) {
        let Some(connection) = &mut self.nodes[node].connection else { return };
        match message {
            Outbound::Graph { graph, .. } => {
                connection.graphs.insert(graph);
            }
            Outbound::Weights { state, .. } => {
                connection.blobs.insert(state);
            }
            Outbound::Task { lease, task, flops, work, .. } => {
                let assigned = Assigned { lease, task, work, flops, fetching: false };
                self.queue_task(node, assigned);
            }
            Outbound::Reveal { lease } => {
                if let Some(kept) = connection.kept.remove(&lease) {
                    self.reveal(node, lease, kept);
                }
            }
            Outbound::Cancel { lease } => {
                connection.kept.remove(&lease);
                connection.queue.retain(|task| task.lease != lease);
                connection.running.retain(|task| task.lease != lease);
                self.start(node);
            }
            Outbound::Drop { blobs, graphs } => {
                for blob in blobs {
                    connection.blobs.remove(&blob);
                }
                for graph in graphs {
                    connection.graphs.remove(&graph);
                }
            }
        }
    }

    fn reveal(&mut self, node: usize, lease: LeaseId, kept: Kept) {
        let broken = self.rng.chance(self.scenario.faults.broken_commitment);
        let value = if broken { kept.value ^ 1 } else { kept.value };
        self.send_up(node, Up::Result { lease, value, bytes: kept.bytes });
    }

    /// Starts queued tasks on free workers.
    fn start(&mut self, node: usize) {
        loop {
            let workers = self.nodes[node].workers as usize;
            let Some(connection) = &mut self.nodes[node].connection else { return };
            if connection.running.len() >= workers {
                return;
            }
            let Some(task) = connection.queue.pop_front() else { return };
            let lease = task.lease;
            if self.rng.chance(self.scenario.faults.refuse) {
                let reasons = [
                    RefuseReason::TooLarge,
                    RefuseReason::Missing,
                    RefuseReason::Invalid,
                    RefuseReason::Stopping,
                    RefuseReason::Failed,
                ];
                let reason = reasons[self.rng.below(5) as usize];
                self.send_up(node, Up::Refuse { lease, reason });
                continue;
            }
            let fetching = task.fetching;
            let Some(connection) = &mut self.nodes[node].connection else { return };
            connection.running.push(task.clone());
            if !fetching {
                self.compute(node, &task);
            }
        }
    }

    /// Takes a task in hand: its shards are fetched at once, while others run.
    fn queue_task(&mut self, node: usize, mut task: Assigned) {
        let lease = task.lease;
        let missing = self.missing_shards(node, &task);
        task.fetching = missing > 0;
        let Some(connection) = &mut self.nodes[node].connection else { return };
        let session = connection.session;
        connection.queue.push_back(task);
        if missing > 0 {
            let latency = self.nodes[node].spec.link.latency_us;
            if let Some(arrives) = self.down_time(node, session, missing) {
                self.at(arrives + latency, Happening::Fetched { node, session, lease });
            }
        }
        self.start(node);
    }

    /// Notes the shards of `task` as held; the bytes that were missing.
    fn missing_shards(&mut self, node: usize, task: &Assigned) -> u64 {
        let &Work::Replica { start, count, .. } = &task.work else { return 0 };
        let mut bytes = 0;
        for micro in start..start + count {
            let order = self.shell.kernel.order(task.task.job, task.task.round);
            for shard in order.shards_of(task.task.round, micro) {
                let shard = self.shell.kernel.plan(task.task.job).shards[shard as usize];
                let Some(connection) = &mut self.nodes[node].connection else { return 0 };
                if connection.blobs.insert(shard.blob) {
                    bytes += shard.bytes;
                }
            }
        }
        bytes
    }

    fn fetched(&mut self, node: usize, lease: LeaseId) {
        let Some(connection) = &mut self.nodes[node].connection else { return };
        if let Some(waiting) = connection.queue.iter_mut().find(|task| task.lease == lease) {
            waiting.fetching = false;
        }
        let Some(running) = connection.running.iter_mut().find(|task| task.lease == lease) else {
            return;
        };
        running.fetching = false;
        let task = running.clone();
        self.compute(node, &task);
    }

    fn compute(&mut self, node: usize, task: &Assigned) {
        let faults = self.scenario.faults;
        let mut time = self.nodes[node].compute_us(task.flops) as f64;
        time *= 1.0 + faults.jitter * self.rng.unit();
        if self.rng.chance(faults.slow_task) {
            time *= self.rng.between(1, faults.slow_factor) as f64;
        }
        let Some(connection) = &self.nodes[node].connection else { return };
        let session = connection.session;
        self.after(time as Micros, Happening::Done { node, session, lease: task.lease });
    }

    fn done(&mut self, node: usize, lease: LeaseId) {
        let Some(connection) = &mut self.nodes[node].connection else { return };
        let Some(at) = connection.running.iter().position(|task| task.lease == lease) else {
            return;
        };
        let task = connection.running.remove(at);
        let value = self.shell.kernel.run(task.task, &task.work);
        let digest = digest_of(task.task, value);
        let bytes = self.result_bytes(task.task.job, &task.work);
        if let Some(connection) = &mut self.nodes[node].connection {
            connection.kept.insert(lease, Kept { value, bytes });
        }
        let faults = self.scenario.faults;
        if self.rng.chance(faults.early_result) {
            self.send_up(node, Up::Result { lease, value, bytes });
        }
        self.send_up(node, Up::Commit { lease, digest });
        if self.rng.chance(faults.duplicate_commit) {
            self.send_up(node, Up::Commit { lease, digest });
        }
        if let Some((lease, digest)) =
            self.some_lease.filter(|_| self.rng.chance(faults.foreign_answer))
        {
            let message = match self.rng.below(3) {
                0 => Up::Commit { lease, digest },
                1 => Up::Result { lease, value, bytes },
                _ => Up::Refuse { lease, reason: RefuseReason::Failed },
            };
            self.send_up(node, message);
        }
        self.start(node);
    }

    fn result_bytes(&self, job: JobId, work: &Work) -> u64 {
        use raven_engine::{Placement, StagePlan};
        match (&self.shell.kernel.plan(job).placement, work) {
            (Placement::Replica { result_bytes, .. }, _) => *result_bytes,
            (Placement::Master { stages, .. }, &Work::Part { stage, part, .. }) => {
                match &stages[stage as usize] {
                    StagePlan::Pushed { parts } => parts[part as usize].result_bytes,
                    StagePlan::Local => 0,
                }
            }
            (Placement::Master { .. }, Work::Replica { .. }) => 0,
        }
    }

    /// The visitor pauses, resumes or moves the slider.
    fn pace(&mut self, node: usize) {
        let wait = self.rng.wait(self.scenario.faults.pace_mean_us);
        self.after(wait, Happening::Pace { node });
        let entry = &mut self.nodes[node];
        let Some(connection) = entry.connection.as_mut().filter(|_| !entry.frozen) else { return };
        let message = if connection.paused {
            connection.paused = false;
            Up::Resume
        } else if self.rng.chance(0.3) {
            connection.paused = true;
            Up::Pause
        } else {
            entry.share = 0.05 + 0.95 * self.rng.unit();
            entry.workers = self.rng.between(1, 4) as u32;
            Up::Pace { share: entry.share, workers: entry.workers }
        };
        self.send_up(node, message);
    }

    // ---- the end ----

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
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.sessions.remove(&session);
            self.tell(Event::SessionClosed { session });
        }
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.now = self.now.max(entry.at);
            if let Some(Happening::Effect { effect, answer }) = self.happenings.remove(&entry.order)
            {
                self.tell(Event::EffectDone { effect, outcome: answer });
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
            stats: self.engine.stats(self.now / MS),
            ended_us,
            events: self.events,
            engine_time: self.engine_time,
            tasks_by_node: self.tasks_by_node.clone(),
            lease_ms_of: self.lease_ms_of.clone(),
        }
    }
}
