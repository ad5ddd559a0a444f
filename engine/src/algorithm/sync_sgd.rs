//! Synchronous SGD: every round is one batch, one reduce, one optimizer step.
//!
//! ```text
//! init -> save -> round -> step -> save -> round ...
//!                   ^                |
//!                   |         end of an epoch
//!                   |                v
//!                  save <------- evaluate
//! ```
//! A step whose loss diverges leads back to the last save that was a checkpoint.
//! A round of replica placement is one stage of runs; a round of master
//! placement goes through the plan's stages in order.

use super::{Action, Diverged, Draft, Input};
use crate::divergence::{Divergence, LossMonitor};
use crate::effect::TreePart;
use crate::event::Metrics;
use crate::job::{Cause, CompletedReason, JobState};
use crate::plan::{Patience, Placement, ResumePoint, StagePlan, SyncSgd};
use crate::sampling::Layout;
use raven_protocol::BlobId;
use std::collections::BTreeSet;
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
        checkpoint: bool,
    },
    /// Whether the job is to go back, or to end.
    Diverged,
    SaveSetBack,
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
    /// Steps that were done where it began again because its loss diverged.
    setbacks: Vec<u32>,
    losses: LossMonitor,
    /// Where it begins again then.
    checkpoint: Option<Checkpoint>,
}

/// What a job that goes back to its last checkpoint has of it.
#[derive(Clone, Debug)]
struct Checkpoint {
    state: BlobId,
    step: u32,
    epochs_done: u32,
    best: Option<(f32, BlobId)>,
    patience: Patience,
    losses: LossMonitor,
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
            setbacks: Vec::new(),
            losses: LossMonitor::default(),
            checkpoint: None,
        };
        if let Some(resume) = resume {
            driver.state = Some(resume.weights);
            driver.step = resume.step.min(layout.total_rounds);
            driver.epochs_done = resume.epochs_done.min(layout.epoch_of(driver.step));
            driver.best = resume.best;
            driver.patience = resume.patience;
            driver.setbacks = resume.setbacks;
            driver.losses = resume.losses;
            driver.note_checkpoint();
        }
        driver
    }

    pub(crate) fn state(&self) -> Option<BlobId> {
        self.state
    }

    /// Every state that it still holds of the shell.
    pub(crate) fn states(&self) -> Vec<BlobId> {
        let replaced = match self.phase {
            Phase::SaveStep { replaced, .. } => Some(replaced),
            _ => None,
        };
        let kept = self.checkpoint.as_ref().map(|checkpoint| checkpoint.state);
        let states: BTreeSet<BlobId> = self.state.into_iter().chain(replaced).chain(kept).collect();
        states.into_iter().collect()
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
            Phase::Stage { .. }
            | Phase::Step { .. }
            | Phase::SaveStep { .. }
            | Phase::Diverged
            | Phase::SaveSetBack
            | Phase::Ended => {
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
            (Phase::SaveInit, Input::Persisted) => {
                let mut actions = self.note_checkpoint();
                actions.extend(self.go_on());
                actions
            }
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
                let what = format!(
                    "only {kept} of {groups} groups have gradients that are finite \
                     and within the guard; at least half are needed"
                );
                if self.plan.divergence.is_some() {
                    return vec![self.diverged(f32::NAN, what)];
                }
                vec![self.failed(format!("at step {step} {what}"))]
            }
            (Phase::SaveStep { replaced, checkpoint }, Input::Persisted) => {
                let mut actions = if checkpoint { self.note_checkpoint() } else { Vec::new() };
                if self.checkpoint.as_ref().is_none_or(|kept| kept.state != replaced) {
                    actions.push(Action::ReleaseState { state: replaced });
                }
                actions.dedup();
                actions.extend(self.go_on());
                actions
            }
            (Phase::SaveSetBack, Input::Persisted) => self.go_on(),
            (Phase::Evaluate, Input::Evaluated { metrics }) => self.evaluated(metrics),
            (Phase::SaveEvaluation { completed: Some(reason) }, Input::Persisted) => {
                self.phase = Phase::Ended;
                vec![Action::End { state: JobState::Completed { reason }, persisted: true }]
            }
            (Phase::SaveEvaluation { completed: None }, Input::Persisted) => {
                let mut actions = self.note_checkpoint();
                actions.extend(self.go_on());
                actions
            }
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
        let scheduled = self.plan.schedule.lr_at(u64::from(round), total);
        let learning_rate = match &self.plan.divergence {
            Some(rule) => rule.learning_rate(scheduled, &self.setbacks, round),
            None => scheduled,
        };
        self.phase = Phase::Step { learning_rate };
        vec![Action::Step { round, state, parts, learning_rate, step }]
    }

    fn stepped(&mut self, rate: f32, state: BlobId, train: Metrics, norm: f32) -> Vec<Action> {
        let step = self.step + 1;
        let what = not_finite("loss", train.loss_sum).or(not_finite("gradient norm", norm));
        if let Some(rule) = self.plan.divergence {
            let loss = train.loss_sum / train.count;
            let is_high = self.losses.observe(&rule, &self.setbacks, self.step, loss);
            let what = what.map(|what| format!("the {what}"));
            let what = what.or_else(|| is_high.then(|| too_high(&rule, loss)));
            if let Some(what) = what {
                return vec![Action::ReleaseState { state }, self.diverged(loss, what)];
            }
        } else if let Some(what) = what {
            let reason = format!("the {what} at step {step}");
            return vec![Action::ReleaseState { state }, self.failed(reason)];
        }
        let Some(replaced) = self.state.replace(state) else { return Vec::new() };
        self.step = step;
        // The end of an epoch is kept before its evaluation, so that a crash
        // between the two costs an evaluation and not an epoch.
        let checkpoint = step.is_multiple_of(self.layout.rounds_per_epoch);
        self.phase = Phase::SaveStep { replaced, checkpoint };
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

    /// Notes that what is durable now is where a job whose loss diverges begins again.
    fn note_checkpoint(&mut self) -> Vec<Action> {
        let (Some(state), Some(_)) = (self.state, self.plan.divergence) else { return Vec::new() };
        let before = self.checkpoint.replace(Checkpoint {
            state,
            step: self.step,
            epochs_done: self.epochs_done,
            best: self.best,
            patience: self.patience,
            losses: self.losses.clone(),
        });
        let unused = before.map(|before| before.state).filter(|&before| before != state);
        unused.into_iter().map(|state| Action::ReleaseState { state }).collect()
    }

    fn diverged(&mut self, loss: f32, what: String) -> Action {
        self.phase = Phase::Diverged;
        Action::Diverged(Diverged { step: self.step + 1, loss, what })
    }

    /// Goes back to the last checkpoint, if it may once more: the state that is no
    /// longer needed.
    ///
    /// # Errors
    /// A sentence for the job's owner.
    pub(crate) fn set_back(&mut self, diverged: &Diverged) -> Result<Option<BlobId>, String> {
        let Diverged { step, what, .. } = diverged;
        let max = self.plan.divergence.map_or(0, |rule| rule.setbacks_max);
        let done = self.setbacks.len() as u32;
        let Some(to) = self.checkpoint.clone().filter(|_| done < max) else {
            let after = match done {
                0 => String::new(),
                1 => " after it went back once".to_owned(),
                _ => format!(" after it went back {done} times"),
            };
            return Err(format!("it diverges at step {step}{after}: {what}"));
        };
        let unused = self.state.replace(to.state).filter(|&state| state != to.state);
        self.step = to.step;
        self.epochs_done = to.epochs_done;
        self.best = to.best;
        self.patience = to.patience;
        self.losses = to.losses;
        self.setbacks.push(to.step);
        self.phase = Phase::SaveSetBack;
        Ok(unused)
    }

    fn failed(&mut self, reason: String) -> Action {
        self.phase = Phase::Ended;
        let cause = Cause::NotFinite;
        Action::End { state: JobState::Failed { cause, reason }, persisted: false }
    }
}

fn too_high(rule: &Divergence, loss: f32) -> String {
    let Divergence { factor, window, .. } = rule;
    format!(
        "the mean loss over {window} steps is more than {factor} times the lowest before; that \
         of the last is {loss}"
    )
}

fn not_finite(what: &str, value: f32) -> Option<String> {
    (!value.is_finite()).then(|| {
        let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        format!("{what} became {value}")
    })
}
