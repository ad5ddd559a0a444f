//! Jobs end: what is out is answered, their last record is made durable, and offered
//! to the store until it takes it.

use crate::algorithm::{Action, Draft, Input};
use crate::effect::Effect;
use crate::engine::Engine;
use crate::event::{EffectError, Outcome};
use crate::job::{Cause, JobState};
use crate::progress::{Kind, record};
use crate::timer::Timer;
use crate::verify::ledger::Held;
use raven_protocol::{GraphId, JobId};
use std::collections::BTreeSet;

/// How a job comes to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    /// Effects are still being answered; nothing new is started.
    Draining(JobState),
    /// The last record is being made durable.
    Saving(JobState),
}

impl Ending {
    pub(crate) fn state(&self) -> &JobState {
        match self {
            Ending::Draining(state) | Ending::Saving(state) => state,
        }
    }
}

/// A job that was never taken in, until its end is durable.
#[derive(Clone, Debug)]
pub(crate) struct TurnedAway {
    state: JobState,
    /// How often the store did not take it.
    saves_failed: u32,
}

/// From this attempt on an end is saved without its newest weights: where the
/// disk has no room for them, the last checkpoint is the model.
const SAVES_WITH_WEIGHTS: u32 = 3;

impl Engine {
    /// Fails a job that was never taken in.
    pub(crate) fn turn_away(&mut self, id: JobId, reason: String) {
        self.stats.jobs_refused += 1;
        let state = JobState::Failed { cause: Cause::Refused, reason };
        let view = crate::view::JobView::refused(id, state.clone());
        self.remember(view);
        self.turned_away.insert(id, TurnedAway { state, saves_failed: 0 });
        self.save_refusal(id);
    }

    fn save_refusal(&mut self, id: JobId) {
        let Some(TurnedAway { state, .. }) = self.turned_away.get(&id).cloned() else { return };
        let draft = Draft {
            state,
            step: 0,
            epoch: 0,
            weights: None,
            checkpoint: false,
            best: false,
            train: None,
            evaluation: None,
            learning_rate: None,
        };
        let record = Box::new(record(id, draft, Vec::new()));
        self.ask(id, Kind::PersistRefusal, Vec::new(), |effect| Effect::Persist { effect, record });
    }

    /// The record of a job that was turned away is durable, or is offered again.
    pub(crate) fn refusal_saved(&mut self, id: JobId, outcome: Result<Outcome, EffectError>) {
        if outcome.is_ok() {
            self.turned_away.remove(&id);
            return;
        }
        let Some(refused) = self.turned_away.get_mut(&id) else { return };
        refused.saves_failed = refused.saves_failed.saturating_add(1);
        let failed = refused.saves_failed;
        self.arm_save(id, failed);
    }

    /// Stops a job: no more leases, and its last record once its effects are answered.
    pub(crate) fn begin_end(&mut self, id: JobId, state: JobState) {
        let Some(job) = self.world.jobs.get_mut(&id).filter(|job| job.ending.is_none()) else {
            return;
        };
        job.ending = Some(Ending::Draining(state));
        self.timers.stop(Timer::Deadline(id));
        self.timers.stop(Timer::Fallback(id));
        if let Some(Held::Save(draft)) = job.ledger.held.take() {
            job.unsaved = Some(draft);
        }
        self.queue.retain(|&queued| queued != id);
        self.drop_stage(id);
        self.try_save_end(id);
    }

    /// An effect of a job that is ending was answered.
    pub(crate) fn drained(&mut self, id: JobId, input: Input, ending: Ending) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        match (input, ending) {
            (Input::Persisted, Ending::Saving(state)) => {
                job.saved();
                self.finalize(id, state);
                return;
            }
            (Input::Persisted, Ending::Draining(_)) => {
                job.saved();
                for action in job.driver.on(Input::Persisted) {
                    match action {
                        // Its completion was durable before the wish to end came.
                        Action::End { state, persisted: true } => {
                            self.finalize(id, state);
                            return;
                        }
                        Action::ReleaseState { .. } => self.act(id, action),
                        _ => {}
                    }
                }
            }
            (Input::StateReady { state } | Input::Stepped { state, .. }, _) => {
                self.out.push_back(Effect::ReleaseState { job: id, state });
            }
            _ => {}
        }
        self.try_save_end(id);
    }

    pub(crate) fn try_save_end(&mut self, id: JobId) {
        // What is paid with the end is looked at before, as at a checkpoint.
        self.sample_at_end(id);
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let Some(Ending::Draining(state)) = &job.ending else { return };
        if job.effects > 0 {
            return;
        }
        job.ending = Some(Ending::Saving(state.clone()));
        // What is known to be wrong is not kept as what was trained so far.
        self.go_back_for_good(id);
        self.save_end(id);
    }

    /// Offers an end to the store.
    pub(crate) fn save_end(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return self.save_refusal(id) };
        let Some(Ending::Saving(state)) = &job.ending else { return };
        let mut draft = job.driver.draft(state.clone());
        if let Some(unsaved) = &job.unsaved {
            // The round that waited to be settled was done.
            draft.train = unsaved.train;
            draft.evaluation = unsaved.evaluation;
            draft.learning_rate = unsaved.learning_rate;
        }
        // What was trained so far is its owner's, however the job ended.
        let checkpoint = draft.weights.is_some() && job.saves_failed < SAVES_WITH_WEIGHTS;
        let kind = match (job.ledger.went_back_at_end, job.ledger.set_back) {
            (Some(round), _) => Kind::RollBack { round },
            (None, Some(set_back)) => Kind::SetBack(set_back),
            (None, None) => Kind::Persist,
        };
        self.persist_as(id, Draft { checkpoint, ..draft }, kind);
    }

    pub(crate) fn save_end_later(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        job.saves_failed = job.saves_failed.saturating_add(1);
        let failed = job.saves_failed;
        self.arm_save(id, failed);
    }

    fn arm_save(&mut self, id: JobId, failed: u32) {
        let config = &self.world.config;
        let doubled = config.save_ms_min.saturating_mul(1 << (failed.max(1) - 1).min(20));
        let pause_ms = doubled.min(config.save_ms_max);
        self.timers.set(Timer::SaveEnd(id), self.now + pause_ms);
    }

    /// The job is over and durably so.
    pub(crate) fn finalize(&mut self, id: JobId, state: JobState) {
        let Some(mut job) = self.world.jobs.remove(&id) else { return };
        self.world.touch_all();
        self.timers.stop(Timer::Deadline(id));
        self.timers.stop(Timer::Fallback(id));
        let mut states = job.ledger.states();
        states.extend(job.driver.states());
        for state in states {
            self.out.push_back(Effect::ReleaseState { job: id, state });
        }
        job.ending = Some(Ending::Saving(state));
        self.count_paid(std::mem::take(&mut job.ledger.accepted));
        let graphs: BTreeSet<GraphId> = job.graphs().into_iter().collect();
        let shards: Vec<_> = job.sgd.shards.iter().map(|shard| shard.blob).collect();
        self.forget_job(id, &graphs, &shards);
        let view = self.job_view(&job);
        self.remember(view);
    }

    fn remember(&mut self, view: crate::view::JobView) {
        self.ended.push_back(view);
        while self.ended.len() > self.world.config.jobs_ended_kept {
            self.ended.pop_front();
        }
    }
}
