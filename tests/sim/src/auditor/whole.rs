//! Everything that is live, counted anew.

use super::Auditor;
use super::lease::{StageKey, extent, is_apart, stage_of};
use crate::ids::{IdMap, IdSet};
use raven_engine::{Engine, PayloadId};
use raven_protocol::{BlobId, JobId, LeaseId, SessionId};
use std::collections::BTreeMap;

impl Auditor {
    /// Everything that is live, counted anew.
    pub(super) fn check_whole(&mut self, engine: &Engine) {
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
}
