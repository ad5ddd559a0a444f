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
use raven_engine::{Check, Event, Oddness, PayloadId};
use raven_protocol::{LeaseId, ResultDigest, SessionId, TaskId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// What was projected and shown of tasks whose results are compared.
#[derive(Debug, Default)]
pub(super) struct Panels {
    of_tasks: HashMap<TaskId, Panel>,
    /// Of which task each payload is that they hold.
    tasks: HashMap<PayloadId, TaskId>,
}

/// The same of one task.
#[derive(Debug, Default)]
struct Panel {
    projections: BTreeMap<PayloadId, (LeaseId, Arc<Sketch>)>,
    shown: BTreeMap<PayloadId, Values>,
}

impl Panels {
    fn project(&mut self, task: TaskId, payload: PayloadId, lease: LeaseId, sketch: Arc<Sketch>) {
        self.tasks.insert(payload, task);
        self.of_tasks.entry(task).or_default().projections.insert(payload, (lease, sketch));
    }

    fn show(&mut self, task: TaskId, payload: PayloadId, values: Values) {
        self.tasks.insert(payload, task);
        self.of_tasks.entry(task).or_default().shown.insert(payload, values);
    }

    /// Results of a task that the engine knows of.
    fn shown(&self, task: TaskId) -> Vec<Values> {
        self.of_tasks.get(&task).map_or_else(Vec::new, |it| it.shown.values().cloned().collect())
    }

    /// What others than the holder of `lease` have projected of a task. That a result has
    /// its own projections was seen as it came.
    fn others(&self, task: TaskId, lease: LeaseId) -> Vec<(PayloadId, Arc<Sketch>)> {
        let projections = self.of_tasks.get(&task).map(|panel| &panel.projections);
        let others = projections.into_iter().flatten().filter(|(_, (of, _))| *of != lease);
        others.map(|(&payload, (_, sketch))| (payload, sketch.clone())).collect()
    }

    /// A payload is not asked for any more.
    pub(super) fn release(&mut self, payload: PayloadId) {
        let Some(task) = self.tasks.remove(&payload) else { return };
        let Some(panel) = self.of_tasks.get_mut(&task) else { return };
        panel.projections.remove(&payload);
        panel.shown.remove(&payload);
        if panel.projections.is_empty() && panel.shown.is_empty() {
            self.of_tasks.remove(&task);
        }
    }
}

/// Sessions of which something is being compared. What they have shown by then counts, also
/// where they leave before that is told: so that they have left is told after it.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    running: BTreeMap<SessionId, u32>,
    left: BTreeSet<SessionId>,
}

impl Comparing {
    fn begun(&mut self, session: SessionId) {
        *self.running.entry(session).or_default() += 1;
    }

    /// One more is told; whether it was the last of a session that has left.
    pub(super) fn ended(&mut self, session: SessionId) -> bool {
        let Some(running) = self.running.get_mut(&session) else { return false };
        *running -= 1;
        if *running > 0 {
            return false;
        }
        self.running.remove(&session);
        self.left.remove(&session)
    }

    /// A session has left; whether that can be told at once.
    pub(super) fn left(&mut self, session: SessionId) -> bool {
        let is_compared = self.running.contains_key(&session);
        if is_compared {
            self.left.insert(session);
        }
        !is_compared
    }
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
        let bytes = sketch.bytes();
        let told = move |agrees| Event::Projected { session, lease, projection, bytes, agrees };
        self.panels.project(task, projection, lease, sketch.clone());
        let Some(job) = self.jobs.get_mut(&task.job) else { return self.tell(told(true)) };
        job.relaxed.keep(lease, task.round, sketch.clone());
        let bounds = job.bounds();
        let shown = self.panels.shown(task);
        if shown.is_empty() {
            return self.tell(told(true));
        }
        self.tell(Event::Arrived { session, lease, check: Check::Comparison });
        let compare =
            move || shown.iter().all(|values| agrees(&bounds, &expected, values, &sketch));
        self.check(session, compare, move |agrees| Input::Event(told(agrees)));
    }

    /// A result came: it is told once it was compared with what others projected of its task.
    pub(super) fn revealed(&mut self, mut compared: Compared) {
        let Revealed { session, lease, task, ref expected, .. } = compared.revealed;
        let expected = expected.clone();
        let mut new = self.panels.others(task, lease);
        new.retain(|(id, _)| !compared.with.contains(id));
        let bounds = self.jobs.get(&task.job).map(|job| job.bounds());
        let Some(bounds) = bounds.filter(|_| !new.is_empty()) else {
            return self.show(compared);
        };
        self.tell(Event::Arrived { session, lease, check: Check::Comparison });
        let compare = move || {
            for (id, sketch) in new {
                compared.agrees &= agrees(&bounds, &expected, &compared.revealed.values, &sketch);
                compared.with.insert(id);
            }
            compared
        };
        self.check(session, compare, |compared| Input::Compared(Box::new(compared)));
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
            self.panels.show(task, payload, values);
        }
        self.tell(Event::Revealed { session, lease, digest, payload, bytes, odd, agrees });
    }

    /// Runs a comparison where it holds up nobody, and has its outcome told.
    fn check<T: Send + 'static>(
        &mut self,
        session: SessionId,
        compare: impl FnOnce() -> T + Send + 'static,
        input: impl FnOnce(T) -> Input + Send + 'static,
    ) {
        self.comparing.begun(session);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let outcome = shared.checks.run(compare).await;
            let outcome = outcome.map(|outcome| Box::new(input(outcome)));
            let outcome = outcome.inspect_err(|error| {
                tracing::error!(%error, "results were not compared");
            });
            // Where the driver is gone, so is its job.
            drop(shared.inputs.send(Input::Checked { session, outcome: outcome.ok() }).await);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_protocol::{JobId, Seed};

    #[test]
    fn a_task_is_compared_with_what_others_projected_of_it_and_then_forgotten() {
        let task = |part| TaskId { job: JobId(1), round: 0, stage: 0, part };
        let expected = Expected { outputs: Vec::new() };
        let sketch = Arc::new(Sketch::of(&expected, Seed(5), 32, &Values::new()));
        let mut panels = Panels::default();
        for (part, payload) in [(1, 1), (1, 2), (2, 3)] {
            let lease = LeaseId(u128::from(payload));
            panels.project(task(part), PayloadId(payload), lease, sketch.clone());
        }
        panels.show(task(1), PayloadId(4), Values::new());
        let others = |panels: &Panels, part, lease| -> Vec<u64> {
            panels.others(task(part), LeaseId(lease)).iter().map(|(id, _)| id.0).collect()
        };
        assert_eq!(others(&panels, 1, 1), [2], "its own were looked at as it came");
        assert_eq!(others(&panels, 1, 9), [1, 2]);
        assert_eq!(others(&panels, 2, 3), Vec::<u64>::new());
        assert_eq!([1, 2, 3].map(|part| panels.shown(task(part)).len()), [1, 0, 0]);
        for payload in 1..=4 {
            // Once more is once.
            panels.release(PayloadId(payload));
            panels.release(PayloadId(payload));
        }
        assert!(panels.of_tasks.is_empty() && panels.tasks.is_empty());
    }

    #[test]
    fn that_a_session_has_left_is_told_after_what_is_compared_of_it() {
        let (gone, other) = (SessionId(1), SessionId(2));
        let mut comparing = Comparing::default();
        assert!(comparing.left(gone), "nothing of it is compared");
        comparing.begun(gone);
        comparing.begun(gone);
        comparing.begun(other);
        assert!(!comparing.left(gone));
        assert!(!comparing.ended(gone), "another one of it is under way");
        assert!(!comparing.ended(other), "it is there");
        assert!(comparing.ended(gone));
        assert!(comparing.running.is_empty() && comparing.left.is_empty());
    }
}
