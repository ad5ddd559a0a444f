//! The contributors' side of the simulation: joining, working, failing.

use crate::adversary::{Adversary, Lie};
use crate::faults::{MS, Micros};
use crate::kernel::{Value, digest_of};
use crate::node::{Assigned, Connection, Kept, Up};
use crate::relaxed::Vector;
use crate::sim::{CEILING, Happening, Sim};
use raven_engine::{
    Beneficiary, Event, Identity, NetworkPrefix, Outbound, Placement, SessionProfile, SiteId,
    StagePlan, Work,
};
use raven_protocol::{Backend, DeviceClass, JobId, LeaseId, RefuseReason, Seed, SessionId};

/// Every contributor is at home somewhere else.
fn prefix(node: usize) -> NetworkPrefix {
    let mut prefix = [0x20; 16];
    prefix[..8].copy_from_slice(&(node as u64).to_le_bytes());
    NetworkPrefix(prefix)
}

impl Sim {
    pub(crate) fn join(&mut self, node: usize) {
        if self.nodes[node].gone || self.nodes[node].connection.is_some() {
            return;
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let faults = self.scenario.faults;
        let lie = 1.0 + (faults.claim_factor - 1.0) * self.rng.unit();
        let lie = if self.rng.chance(0.5) { lie } else { 1.0 / lie };
        let entry = &mut self.nodes[node];
        entry.arrives();
        entry.connection = Some(Connection::new(session));
        let identity = Identity {
            contributor: entry.contributor,
            device: DeviceClass::Desktop,
            backend: entry.spec.numeric().backend(),
        };
        if entry.spec.adversary.is_some() {
            self.truth.cheats.insert(entry.contributor);
        }
        let profile = SessionProfile {
            contributor: entry.contributor,
            site: Some(SiteId(node as u64 % 3)),
            beneficiary: Beneficiary::default(),
            prefix: prefix(node),
            device: DeviceClass::Desktop,
            numeric: entry.spec.numeric(),
            flops_per_s: (entry.spec.flops_per_s as f64 * lie) as u64,
            share: entry.share,
            workers: entry.workers,
            memory_bytes: entry.spec.memory_bytes,
            traffic_bytes: entry.spec.traffic_bytes,
            refused: entry.spec.refused,
            trust: self.truth.trust.get(&identity).copied().unwrap_or_default(),
            operator: entry.spec.operator,
        };
        self.sessions.insert(session, node);
        self.plan_freeze(node, faults.freeze_mean_us);
        let stay_mean_us = match self.nodes[node].spec.stay_mean_us {
            0 => faults.crash_mean_us,
            mean => mean,
        };
        if stay_mean_us > 0 {
            let wait = self.rng.wait(stay_mean_us);
            self.after(wait, Happening::Crash { node });
        }
        if faults.pace_mean_us > 0 {
            let wait = self.rng.wait(faults.pace_mean_us);
            self.after(wait, Happening::Pace { node });
        }
        self.tell(Event::SessionOpened { session, profile });
    }

    pub(crate) fn plan_freeze(&mut self, node: usize, mean: Micros) {
        if mean > 0 {
            let wait = self.rng.wait(mean);
            let length_us = Some(self.rng.wait(self.scenario.faults.freeze_length_us));
            self.after(wait, Happening::Freeze { node, length_us });
        }
    }

    /// The contributor's connection breaks; the coordinator notices later.
    pub(crate) fn disconnect(&mut self, node: usize, may_leave: bool) {
        let Some(connection) = &self.nodes[node].connection else { return };
        let session = connection.session;
        let wait = self.rng.wait(self.scenario.faults.notice_mean_us);
        self.after(wait, Happening::Noticed { session });
        if may_leave && self.rng.chance(self.scenario.faults.leave_for_good) {
            self.nodes[node].gone = true;
        }
        self.disconnect_from(node, session);
    }

    pub(crate) fn disconnect_from(&mut self, node: usize, session: SessionId) {
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

    pub(crate) fn receive(&mut self, node: usize, message: Outbound) {
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
            Outbound::Project { lease, key, probes } => {
                if let Some(&kept) = connection.kept.get(&lease) {
                    self.project(node, lease, kept, key, probes);
                }
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

    fn project(&mut self, node: usize, lease: LeaseId, kept: Kept, key: Seed, probes: u32) {
        let lie = self.nodes[node].spec.adversary.map(|it| it.lie);
        let vector = match lie {
            Some(Lie::Withheld) => return,
            Some(Lie::Feigned) => Vector::of(kept.value),
            _ => kept.vector.unwrap_or_else(|| Vector::of(kept.value)),
        };
        let projections = vector.project(key, probes);
        self.send_up(node, Up::Projected { lease, projections });
    }

    fn reveal(&mut self, node: usize, lease: LeaseId, kept: Kept) {
        let withholds = |it: Adversary| it.lie == Lie::Withheld;
        if self.nodes[node].spec.adversary.is_some_and(withholds) {
            return;
        }
        let broken = self.rng.chance(self.scenario.faults.broken_commitment);
        let value = if broken { kept.value ^ 1 } else { kept.value };
        let vector = kept.vector.map(|vector| if broken { Vector::of(value) } else { vector });
        self.send_up(node, Up::Result { lease, value, vector, bytes: kept.bytes });
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
            if self.nodes[node].spec.refuses {
                self.send_up(node, Up::Refuse { lease, reason: RefuseReason::TooLarge });
                continue;
            }
            let slanders = |it: Adversary| it.lie == Lie::Invalid;
            if self.nodes[node].spec.adversary.is_some_and(slanders) {
                self.send_up(node, Up::Refuse { lease, reason: RefuseReason::Invalid });
                continue;
            }
            if self.rng.chance(self.scenario.faults.refuse) {
                let reasons = [
                    RefuseReason::TooLarge,
                    RefuseReason::Unsupported,
                    RefuseReason::Missing,
                    RefuseReason::Invalid,
                    RefuseReason::Stopping,
                    RefuseReason::Failed,
                ];
                let reason = reasons[self.rng.below(reasons.len() as u64) as usize];
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

    pub(crate) fn fetched(&mut self, node: usize, lease: LeaseId) {
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

    pub(crate) fn done(&mut self, node: usize, lease: LeaseId) {
        let Some(connection) = &mut self.nodes[node].connection else { return };
        let Some(at) = connection.running.iter().position(|task| task.lease == lease) else {
            return;
        };
        let task = connection.running.remove(at);
        let truth = self.shell.kernel.run(task.task, &task.work);
        self.truth.executed += task.flops;
        self.truth.honest_done += u64::from(self.nodes[node].spec.adversary.is_none());
        let (value, vector) = self.answer(node, truth, &task.work);
        let digest =
            vector.map_or_else(|| digest_of(task.task, value), |vector| vector.digest(task.task));
        // Whoever is honest is so at kinks, too.
        let is_cheat = self.nodes[node].spec.adversary.is_some();
        let is_far = is_cheat && vector.is_some_and(|vector| vector.off(truth) > CEILING);
        if value != truth || is_far {
            let who = self.nodes[node].contributor;
            self.truth.false_results.entry((task.task, digest)).or_default().insert(who);
        }
        let bytes = self.result_bytes(task.task.job, &task.work);
        if let Some(connection) = &mut self.nodes[node].connection {
            connection.kept.insert(lease, Kept { value, vector, bytes });
            connection.done.insert(lease);
        }
        let faults = self.scenario.faults;
        if self.rng.chance(faults.early_result) {
            self.send_up(node, Up::Result { lease, value, vector, bytes });
        }
        self.send_up(node, Up::Commit { lease, digest });
        if self.rng.chance(faults.duplicate_commit) {
            self.send_up(node, Up::Commit { lease, digest });
        }
        if let Some((lease, digest)) =
            self.some_lease.filter(|_| self.rng.chance(faults.foreign_answer))
        {
            let message = match self.rng.below(3) {
                0 => Some(Up::Commit { lease, digest }),
                // To a lease of its own it would break its word, which is a fault apart.
                1 if self.is_own(node, lease) && faults.broken_commitment == 0.0 => None,
                1 => Some(Up::Result { lease, value, vector, bytes }),
                _ => Some(Up::Refuse { lease, reason: RefuseReason::Failed }),
            };
            if let Some(message) = message {
                self.send_up(node, message);
            }
        }
        self.start(node);
    }

    /// Whether `node` was given that lease on its present connection, and has done it.
    fn is_own(&self, node: usize, lease: LeaseId) -> bool {
        let connection = self.nodes[node].connection.as_ref();
        connection.is_some_and(|connection| connection.done.contains(&lease))
    }

    /// What a contributor says that a task yields. Whatever a GPU says, the truth goes
    /// with it: it is what the simulation combines.
    fn answer(&mut self, node: usize, truth: Value, work: &Work) -> (Value, Option<Vector>) {
        let entry = &mut self.nodes[node];
        entry.tasks_done += 1;
        let before = std::mem::replace(&mut entry.last_value, truth);
        let lying = entry
            .spec
            .adversary
            .filter(|it| entry.tasks_done > it.honest_first && entry.lies_told < it.lies_max)
            .filter(|it| it.about.holds(work));
        let lie = lying.map(|it| it.lie);
        let answer = match entry.spec.numeric().backend() {
            Backend::Cpu => {
                (lie.map_or(truth, |lie| lie.value(truth, before, &mut self.rng)), None)
            }
            Backend::Gpu => {
                // What is one product has no kinks; a cheat's own would be taken for lies.
                let is_linear = matches!(work, Work::Part { .. }) || entry.spec.adversary.is_some();
                let rng = &mut self.rng;
                let vector = lie.map(|lie| Vector::lie(lie, truth, before, rng));
                (truth, Some(vector.unwrap_or_else(|| Vector::of(truth).rounded(is_linear, rng))))
            }
        };
        let (value, vector) = answer;
        let is_far = lie.is_some() && vector.is_some_and(|vector| vector.off(truth) > CEILING);
        if value != truth || is_far {
            entry.lies_told += 1;
            *self.truth.lies.entry(entry.contributor).or_default() += 1;
            self.truth.first_lies.entry(entry.contributor).or_insert(self.now);
        }
        answer
    }

    fn result_bytes(&self, job: JobId, work: &Work) -> u64 {
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
    pub(crate) fn pace(&mut self, node: usize) {
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
}
