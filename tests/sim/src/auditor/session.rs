//! Sessions: what each holds, and what may be sent to it.

use super::Auditor;
use super::lease::ModelLease;
use crate::ids::{IdMap, IdSet};
use crate::shell::Shell;
use raven_engine::{Outbound, SessionProfile};
use raven_protocol::{BlobId, GraphId, LeaseId, SessionId};

/// What the model knows of a session.
#[derive(Clone, Debug)]
pub(super) struct ModelSession {
    pub(super) profile: SessionProfile,
    pub(super) graphs: IdSet<GraphId>,
    /// Weights and shards, with their bytes, and how many these are together.
    pub(super) blobs: IdMap<BlobId, u64>,
    pub(super) held: u64,
    /// Its live leases, and how many of them are not committed.
    pub(super) leases: IdSet<LeaseId>,
    pub(super) open: u64,
}

impl ModelSession {
    /// It is sent, or fetches, a blob that it may hold already.
    pub(super) fn hold(&mut self, blob: BlobId, bytes: u64) {
        let before = self.blobs.insert(blob, bytes);
        self.held = self.held - before.unwrap_or(0) + bytes;
    }
}

impl Auditor {
    pub(super) fn opened(&mut self, session: SessionId, profile: &SessionProfile) {
        let model = ModelSession {
            profile: profile.clone(),
            graphs: IdSet::default(),
            blobs: IdMap::default(),
            held: 0,
            leases: IdSet::default(),
            open: 0,
        };
        self.sessions.insert(session, model);
    }

    pub(super) fn sent(&mut self, session: SessionId, message: &Outbound, shell: &mut Shell) {
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

    pub(super) fn close(&mut self, session: SessionId) {
        let leases = self.sessions.get(&session).map(|model| model.leases.clone());
        for lease in leases.into_iter().flatten() {
            self.ends(lease);
        }
        self.sessions.remove(&session);
    }
}
