//! Synchronous SGD: every round is one batch, one reduce, one optimizer step.
//!
//! ```text
//! init -> save -> round -> step -> save -> round ...
//!                   ^                |
//!                   |         end of an epoch
//!                   |                v
//!                  save <------- evaluate
//! ```
//! A round of replica placement is one stage of runs; a round of master
//! placement goes through the plan's stages in order.

use super::{Action, Draft, Input};
use crate::effect::TreePart;
use crate::event::Metrics;
use crate::job::{Cause, CompletedReason, JobState};
use crate::plan::{Patience, Placement, ResumePoint, StagePlan, SyncSgd};
use crate::sampling::Layout;
use raven_protocol::BlobId;
use std::sync::Arc;

/// What is being waited for.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// [`Input::Begin`].
    New,
    InitState,
    SaveInit,
    Stage {
        stage: u32,
    },
    Step {
        learning_rate: f32,
    },
    SaveStep {
        replaced: BlobId,
    },
    Evaluate,
    SaveEvaluation {
        completed: Option<CompletedReason>,
    },
    Ended,
}

/// The state machine of one job.
#[derive(Clone, Debug)]
pub(crate) struct SyncSgdDriver {
    plan: Arc<SyncSgd>,
    layout: Layout,
    phase: Phase,
    /// The newest state that passed its checks.
    state: Option<BlobId>,
    /// Optimizer steps done; the number of the next round.
    step: u32,
    epochs_done: u32,
    best: Option<(f32, BlobId)>,
    patience: Patience,
}

impl SyncSgdDriver {
    pub(crate) fn new(plan: Arc<SyncSgd>, layout: Layout, resume: Option<ResumePoint>) -> Self {
        let mut driver = SyncSgdDriver {
            plan,
            layout,
            phase: Phase::New,
            state: None,
            step: 0,
            epochs_done: 0,
            best: None,
            patience: Patience::default(),
        };
        if let Some(resume) = resume {
            driver.state = Some(resume.weights);
            driver.step = resume.step.min(layout.total_rounds);
            driver.epochs_done = resume.epochs_done.min(layout.epoch_of(driver.step));
            driver.best = resume.best;
            driver.patience = resume.patience;
        }
        driver
    }

    pub(crate) fn state(&self) -> Option<BlobId> {
        self.state
    }

    /// Every state that it still holds of the shell.
    pub(crate) fn states(&self) -> Vec<BlobId> {
        let replaced = match self.phase {
            Phase::SaveStep { replaced } => Some(replaced),
            _ => None,
        };
        self.state.into_iter().chain(replaced).collect()
    }

    pub(crate) fn step(&self) -> u32 {
        self.step
    }

    pub(crate) fn total_steps(&self) -> u32 {
        self.layout.total_rounds
    }

    /// Rounds until the next checkpoint, with the one that is going on.
    pub(crate) fn rounds_to_checkpoint(&self) -> u32 {
        self.layout.rounds_per_epoch - self.step % self.layout.rounds_per_epoch
    }

    pub(crate) fn epochs_done(&self) -> u32 {
        self.epochs_done
    }

    pub(crate) fn best(&self) -> Option<(f32, BlobId)> {
        self.best
    }

    /// Where the job stands, apart from whether contributors are there.
    pub(crate) fn job_state(&self) -> JobState {
        match self.phase {
            Phase::New => JobState::Queued,
            Phase::InitState | Phase::SaveInit => JobState::Initializing,
            Phase::Evaluate | Phase::SaveEvaluation { .. } => {
                JobState::Evaluating { epoch: self.last_epoch() }
            }
            Phase::Stage { .. } | Phase::Step { .. } | Phase::SaveStep { .. } | Phase::Ended => {
                let steps = self.layout.total_rounds;
                let step = (self.step + 1).min(steps);
                JobState::Running { epoch: self.layout.epoch_of(step - 1), step, steps }
            }
        }
    }

    /// A draft of where things stand, for an end that comes from outside.
    pub(crate) fn draft(&self, state: JobState) -> Draft {
        Draft {
            state,
            step: self.step,
            epoch: self.last_epoch(),
            weights: self.state,
            checkpoint: false,
            best: false,
            train: None,
            evaluation: None,
            learning_rate: None,
        }
    }

    /// Epoch of the last step that was done.
    fn last_epoch(&self) -> u32 {
        self.layout.epoch_of(self.step.saturating_sub(1))
    }

    /// What follows from `input`. An input that the phase does not wait for
    /// changes nothing: it answers something that was given up.
    pub(crate) fn on(&mut self, input: Input) -> Vec<Action> {
        match (self.phase.clone(), input) {
            (Phase::New, Input::Begin) => match self.state {
                None => {
                    self.phase = Phase::InitState;
                    vec![Action::InitState]
                }
                Some(_) => self.go_on(),
            },
            (Phase::InitState, Input::StateReady { state }) => {
                self.state = Some(state);
                self.phase = Phase::SaveInit;
                let running = JobState::Running { epoch: 0, step: 1, steps: self.total_steps() };
                vec![Action::Persist(Draft { checkpoint: true, ..self.draft(running) })]
            }
            (Phase::SaveInit, Input::Persisted) => self.go_on(),
            (Phase::Stage { stage }, Input::StageFinished { parts }) => match self.plan.placement {
                Placement::Replica { .. } => self.reduce(parts),
                Placement::Master { .. } => {
                    vec![Action::Combine { round: self.step, stage, parts }]
                }
            },
            (Phase::Stage { stage }, Input::StageDone) => self.enter_stage(stage + 1),
            (Phase::Step { learning_rate }, Input::Stepped { state, metrics, grad_norm }) => {
                self.stepped(learning_rate, state, metrics, grad_norm)
            }
            (Phase::Step { .. }, Input::Outnumbered { kept, groups }) => {
                let step = self.step + 1;
                let reason = format!(
                    "at step {step} only {kept} of {groups} groups have gradients that are finite \
                     and within the guard; at least half are needed"
                );
                vec![self.failed(reason)]
            }
            (Phase::SaveStep { replaced }, Input::Persisted) => {
                let mut actions = vec![Action::ReleaseState { state: replaced }];
                actions.extend(self.go_on());
                actions
            }
            (Phase::Evaluate, Input::Evaluated { metrics }) => self.evaluated(metrics),
            (Phase::SaveEvaluation { completed: Some(reason) }, Input::Persisted) => {
                self.phase = Phase::Ended;
                vec![Action::End { state: JobState::Completed { reason }, persisted: true }]
            }
            (Phase::SaveEvaluation { completed: None }, Input::Persisted) => self.go_on(),
            _ => Vec::new(),
        }
    }

    /// The next thing after something became durable: an evaluation, a round or the end.
    fn go_on(&mut self) -> Vec<Action> {
        let Some(state) = self.state else { return Vec::new() };
        if self.step / self.layout.rounds_per_epoch > self.epochs_done {
            self.phase = Phase::Evaluate;
            return vec![Action::Evaluate { state }];
        }
        if self.step == self.layout.total_rounds {
            // A resumed job whose last evaluation was durable but not its end.
            self.phase = Phase::Ended;
            let reason = CompletedReason::EpochsDone;
            return vec![Action::End { state: JobState::Completed { reason }, persisted: false }];
        }
        match self.plan.placement {
            Placement::Replica { .. } => {
                self.phase = Phase::Stage { stage: 0 };
                vec![Action::OpenRuns { round: self.step, state }]
            }
            Placement::Master { .. } => self.enter_stage(0),
        }
    }

    /// Starts `stage` of a master round, or the reduce after the last one.
    fn enter_stage(&mut self, stage: u32) -> Vec<Action> {
        let (Some(state), Placement::Master { stages, .. }) = (self.state, &self.plan.placement)
        else {
            return Vec::new();
        };
        let round = self.step;
        let action = match stages.get(stage as usize) {
            None => return self.reduce(Vec::new()),
            Some(StagePlan::Local) => Action::RunLocal { round, stage, state },
            Some(StagePlan::Pushed { .. }) => Action::OpenParts { round, stage, state },
        };
        self.phase = Phase::Stage { stage };
        vec![action]
    }

    fn reduce(&mut self, parts: Vec<TreePart>) -> Vec<Action> {
        let Some(state) = self.state else { return Vec::new() };
        let (round, step) = (self.step, self.step + 1);
        let total = u64::from(self.layout.total_rounds);
        let learning_rate = self.plan.schedule.lr_at(u64::from(round), total);
        self.phase = Phase::Step { learning_rate };
        vec![Action::Step { round, state, parts, learning_rate, step }]
    }

    fn stepped(&mut self, rate: f32, state: BlobId, train: Metrics, norm: f32) -> Vec<Action> {
        let step = self.step + 1;
        if let Some(what) = not_finite("loss", train.loss_sum).or(not_finite("gradient norm", norm))
        {
            let reason = format!("the {what} at step {step}");
            return vec![Action::ReleaseState { state }, self.failed(reason)];
        }
        let Some(replaced) = self.state.replace(state) else { return Vec::new() };
        self.step = step;
        self.phase = Phase::SaveStep { replaced };
        // The end of an epoch is kept before its evaluation, so that a crash
        // between the two costs an evaluation and not an epoch.
        let checkpoint = step.is_multiple_of(self.layout.rounds_per_epoch);
        let draft = Draft {
            checkpoint,
            train: Some(train),
            learning_rate: Some(rate),
            ..self.draft(self.job_state())
        };
        vec![Action::Persist(draft)]
    }

    fn evaluated(&mut self, metrics: Metrics) -> Vec<Action> {
        let Some(state) = self.state else { return Vec::new() };
        let loss = metrics.loss_sum / metrics.count;
        if let Some(what) = not_finite("evaluation loss", loss) {
            let reason = format!("the {what} after step {}", self.step);
            return vec![self.failed(reason)];
        }
        let min_delta = self.plan.early_stopping.map_or(0.0, |stop| stop.min_delta);
        let is_best = self.best.is_none_or(|(best, _)| loss < best);
        if is_best {
            self.best = Some((loss, state));
        }
        self.patience = self.patience.after(loss, min_delta);
        self.epochs_done += 1;
        let stop = self.plan.early_stopping.is_some_and(|s| self.patience.stale > s.patience);
        let completed = if self.epochs_done == self.plan.epochs {
            Some(CompletedReason::EpochsDone)
        } else {
            stop.then_some(CompletedReason::EarlyStopped)
        };
        self.phase = Phase::SaveEvaluation { completed };
        let next = match completed {
            Some(reason) => JobState::Completed { reason },
            None => JobState::Running {
                epoch: self.epochs_done,
                step: self.step + 1,
                steps: self.layout.total_rounds,
            },
        };
        let draft = Draft {
            checkpoint: true,
            best: is_best,
            evaluation: Some(metrics),
            ..self.draft(next)
        };
        vec![Action::Persist(draft)]
    }

    fn failed(&mut self, reason: String) -> Action {
        self.phase = Phase::Ended;
        let cause = Cause::NotFinite;
        Action::End { state: JobState::Failed { cause, reason }, persisted: false }
    }
}

fn not_finite(what: &str, value: f32) -> Option<String> {
    (!value.is_finite()).then(|| {
        let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        format!("{what} became {value}")
    })
}
