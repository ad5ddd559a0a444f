//! Comparing what GPUs project with what was shown, beside the driver's own task:
//! it reads a result as often as it was projected.
//!
//! Projections are held from the moment at which they come, a result from when it
//! was compared with all that are held. So whichever comes second is compared with
//! the other before the engine learns of it.

use super::{Driver, Input};
use crate::runtime::judge::Values;
use crate::runtime::leases::Expected;
use crate::runtime::relaxed::{Bounds, Sketch};
use raven_engine::{Event, Oddness, PayloadId};
use raven_protocol::{LeaseId, ResultDigest, SessionId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A payload that has the types of its task.
#[derive(Debug)]
pub struct Revealed {
    pub session: SessionId,
    pub lease: LeaseId,
    pub task: TaskId,
    pub expected: Arc<Expected>,
    pub digest: ResultDigest,
    /// Of the frame.
    pub bytes: u64,
    pub values: Values,
    /// How it looks by itself.
    pub odd: Oddness,
}

/// One that is being compared.
#[derive(Debug)]
pub struct Compared {
    revealed: Revealed,
    with: BTreeSet<PayloadId>,
    agrees: bool,
}

/// A result that the engine knows of.
#[derive(Debug)]
pub(super) struct Shown {
    task: TaskId,
    values: Values,
}

impl From<Revealed> for Compared {
    fn from(revealed: Revealed) -> Self {
        Compared { revealed, with: BTreeSet::new(), agrees: true }
    }
}

/// Projections that are being compared.
#[derive(Debug)]
pub struct Projected {
    pub session: SessionId,
    pub lease: LeaseId,
    pub task: TaskId,
    pub expected: Arc<Expected>,
    pub sketch: Arc<Sketch>,
}

/// Whether a result agrees with projections of another.
fn agrees(bounds: &Bounds, expected: &Expected, values: &Values, sketch: &Sketch) -> bool {
    bounds.agree(expected, &sketch.like(expected, values), sketch)
}

impl Driver {
    /// Projections came: they are held at once, and told once they are compared.
    pub(super) fn projected(&mut self, projected: Projected) {
        let Projected { session, lease, task, expected, sketch } = projected;
        let projection = self.next_payload();
        self.projections.insert(projection, (task, sketch.clone()));
        let Some(job) = self.jobs.get_mut(&task.job) else {
            return self.tell(Event::Projected { session, lease, projection, agrees: true });
        };
        job.relaxed.keep(lease, task.round, sketch.clone());
        let bounds = job.bounds();
        let shown = self.shown.values().filter(|shown| shown.task == task);
        let shown: Vec<Values> = shown.map(|shown| shown.values.clone()).collect();
        if shown.is_empty() {
            return self.tell(Event::Projected { session, lease, projection, agrees: true });
        }
        let compare =
            move || shown.iter().all(|values| agrees(&bounds, &expected, values, &sketch));
        self.check(compare, move |agrees| {
            Input::Event(Event::Projected { session, lease, projection, agrees })
        });
    }

    /// A result came: it is told once it was compared with all projections of its task.
    pub(super) fn revealed(&mut self, mut compared: Compared) {
        let (task, expected) = (compared.revealed.task, compared.revealed.expected.clone());
        let of_task = self.projections.iter().filter(|(_, (of, _))| *of == task);
        let new = of_task.filter(|(id, _)| !compared.with.contains(id));
        let new: Vec<(PayloadId, Arc<Sketch>)> =
            new.map(|(&id, (_, sketch))| (id, sketch.clone())).collect();
        let bounds = self.jobs.get(&task.job).map(|job| job.bounds());
        let Some(bounds) = bounds.filter(|_| !new.is_empty()) else {
            return self.show(compared);
        };
        let compare = move || {
            for (id, sketch) in new {
                compared.agrees &= agrees(&bounds, &expected, &compared.revealed.values, &sketch);
                compared.with.insert(id);
            }
            compared
        };
        self.check(compare, |compared| Input::Compared(Box::new(compared)));
    }

    fn show(&mut self, compared: Compared) {
        let Compared { revealed, agrees, .. } = compared;
        let Revealed { session, lease, task, digest, bytes, values, odd, .. } = revealed;
        let job = self.jobs.get(&task.job);
        let odd = match (odd, job) {
            (Oddness::Plain, Some(job)) if job.is_unlikely(&values) => Oddness::Unlikely,
            (odd, _) => odd,
        };
        // Only of relaxed jobs is anything projected.
        let is_relaxed = job.is_some_and(|job| job.is_relaxed());
        let kept = is_relaxed.then(|| values.clone());
        let payload = self.hold(values);
        if let Some(values) = kept {
            self.shown.insert(payload, Shown { task, values });
        }
        self.tell(Event::Revealed { session, lease, digest, payload, bytes, odd, agrees });
    }

    /// Runs a comparison where it holds up nobody, and has its outcome told.
    fn check<T: Send + 'static>(
        &self,
        compare: impl FnOnce() -> T + Send + 'static,
        input: impl FnOnce(T) -> Input + Send + 'static,
    ) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            match shared.checks.run(compare).await {
                // Where the driver is gone, so is its job.
                Ok(outcome) => drop(shared.inputs.send(input(outcome)).await),
                Err(error) => tracing::error!(%error, "results were not compared"),
            }
        });
    }
}
