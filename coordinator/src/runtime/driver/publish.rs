//! The network's picture for HTTP.

use super::Driver;
use crate::runtime::snapshot::{JobLive, NetworkSnapshot, NodeSnapshot};
use crate::store::state_reason;
use raven_engine::{SessionStatus, SessionView};
use std::sync::Arc;

impl Driver {
    /// Replaces the picture that HTTP handlers read.
    pub(super) fn publish(&self) {
        let mut views = self.engine.sessions();
        views.sort_by_key(|view| (view.opened, view.session));
        let nodes: Vec<NodeSnapshot> = views.iter().filter_map(|view| self.node(view)).collect();
        // Nothing is promised while records cannot be stored, so every job waits.
        let trouble = self.shared.store.health().trouble();
        let trouble = trouble.map(|trouble| trouble.sentence().to_owned());
        let jobs = self.jobs.iter().filter_map(|(&id, job)| {
            let view = self.engine.job(id)?;
            let live = JobLive {
                category: job.context.plan.category,
                requester: job.requester.clone(),
                phase: view.state.phase(),
                reason: trouble.clone().or_else(|| state_reason(&view.state)),
                contributors: job.progress.contributors,
                images_per_s: job.progress.rows_per_s(),
                train_ms: job.progress.train_ms(),
            };
            Some((id, live))
        });
        let stats = self.engine.stats(self.now());
        let snapshot = NetworkSnapshot {
            contributors: stats.contributors_online,
            workers: nodes.iter().map(|node| u64::from(node.workers)).sum(),
            leases: self.links.values().map(|link| link.leases().open() as u64).sum(),
            payloads: self.payloads.len() as u64,
            tasks_per_s: stats.tasks_per_s,
            jobs: jobs.collect(),
            nodes,
        };
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    fn node(&self, view: &SessionView) -> Option<NodeSnapshot> {
        let link = self.links.get(&view.session)?;
        if link.profile.operator {
            return None;
        }
        let state = match view.status {
            SessionStatus::Working => "working",
            SessionStatus::Idle => "idle",
            SessionStatus::Paused => "paused",
            SessionStatus::BackingOff { .. } => "backing_off",
        };
        Some(NodeSnapshot {
            session: view.session,
            contributor: link.profile.contributor,
            device: view.device,
            numeric: link.profile.numeric,
            share: view.share,
            workers: view.workers,
            flops_per_s: view.flops_per_s as u64,
            measured: view.measured,
            takes_tasks: matches!(view.status, SessionStatus::Working | SessionStatus::Idle),
            tasks_accepted: view.tasks_accepted,
            state,
            joined_s_ago: link.joined.elapsed().as_secs(),
        })
    }
}
