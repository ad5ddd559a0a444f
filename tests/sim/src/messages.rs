//! Messages between the coordinator and its contributors, as the coordinator's side sends
//! and reads them.

use crate::faults::Micros;
use crate::kernel::{Value, digest_of, is_product};
use crate::node::Up;
use crate::relaxed::{PROBED_OFF, Vector};
use crate::sim::{Happening, Sim};
use raven_engine::{Event, Oddness, Outbound, Placement, StagePlan, Work};
use raven_protocol::{JobId, ResultDigest, SessionId, TaskId};

impl Sim {
    pub(crate) fn send_down(&mut self, session: SessionId, message: Outbound) {
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
        let Placement::Master { stages, .. } = &self.shell.kernel.plan(job).placement else {
            return 0;
        };
        match &stages[stage as usize] {
            StagePlan::Pushed { parts } => parts[part as usize].operand_bytes,
            StagePlan::Local => 0,
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
}
