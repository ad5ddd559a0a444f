//! Jobs move on: plans' actions become effects, effects' ends become inputs.

use crate::active::{Ending, Job};
use crate::algorithm::{Action, Draft, Input};
use crate::effect::{Effect, EffectId, Record, SetBack};
use crate::engine::Engine;
use crate::event::{ContributorId, EffectError, Outcome, PayloadId};
use crate::job::{Cause, JobState};
use crate::plan::{JobPlan, Placement, ResumePoint, StagePlan};
use crate::terms::Terms;
use crate::timer::Timer;
use crate::verify::ledger::Held;
use crate::verify::{Case, Ruling};
use raven_protocol::{GraphId, JobId, SessionId};
use std::collections::BTreeSet;

/// An effect that was asked for and is not answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pending {
    pub(crate) job: JobId,
    pub(crate) kind: Kind,
    /// What it reads; released when it has ended.
    pub(crate) payloads: Vec<PayloadId>,
}

/// What an answer must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    InitState,
    Stage,
    Step,
    Evaluate,
    Persist,
    /// The record of a job that waits for money.
    Pause,
    /// The record of going back to a round.
    RollBack {
        round: u32,
    },
    /// The record of going back to a checkpoint.
    SetBack(SetBack),
    /// Answered to a case.
    Referee,
    /// The record of a job that was turned away.
    PersistRefusal,
    Show {
        contributor: ContributorId,
        slice: u32,
    },
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
    pub(crate) fn job_added(&mut self, plan: JobPlan, resume: Option<ResumePoint>, terms: Terms) {
        let id = plan.job;
        let known = self.world.jobs.contains_key(&id) || self.ended.iter().any(|v| v.job == id);
        if known {
            self.stats.ignored.duplicate_job += 1;
            return;
        }
        let (open, max) = (self.world.jobs.len(), self.world.config.jobs_max);
        if open >= max {
            self.turn_away(id, format!("{open} jobs are open, the limit is {max}"));
            return;
        }
        match Job::new(plan, resume, terms, &self.world.config) {
            Ok(job) => {
                if let Some(deadline) = terms.deadline {
                    self.timers.set(Timer::Deadline(id), deadline);
                }
                self.world.jobs.insert(id, job);
                self.world.touch_all();
                self.queue.push_back(id);
            }
            Err(error) => self.turn_away(id, error.to_string()),
        }
    }

    /// Fails a job that was never taken in.
    fn turn_away(&mut self, id: JobId, reason: String) {
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

    /// Starts jobs from the queue while more may run.
    pub(crate) fn start_queued_jobs(&mut self) {
        while self.active_jobs() < self.world.config.jobs_active_max {
            let Some(id) = self.queue.pop_front() else { return };
            // Who comes late is owed nothing for the time before.
            let service = self
                .world
                .jobs
                .values()
                .filter(|job| job.active && job.paused.is_none())
                .map(|job| job.service)
                .min()
                .unwrap_or(0);
            let Some(job) = self.world.jobs.get_mut(&id) else { continue };
            job.active = true;
            job.service = service;
            job.turn_afforded = self.now;
            match job.paused.take() {
                Some(paused) => self.act(id, paused.action),
                None => self.advance(id, Input::Begin),
            }
        }
    }

    fn active_jobs(&self) -> usize {
        self.world.jobs.values().filter(|job| job.active && job.paused.is_none()).count()
    }

    /// Tells the plan, and does what it wants.
    fn advance(&mut self, id: JobId, input: Input) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        for action in job.driver.on(input) {
            self.act(id, action);
        }
    }

    pub(crate) fn act(&mut self, id: JobId, action: Action) {
        if self.holds_round(id, &action) {
            return;
        }
        let payloads =
            |parts: &[crate::effect::TreePart]| parts.iter().map(|part| part.payload).collect();
        match action {
            Action::InitState => {
                self.ask(id, Kind::InitState, Vec::new(), |effect| Effect::InitState {
                    effect,
                    job: id,
                });
            }
            Action::OpenRuns { round, state } => {
                if self.affords(id, round, 0, &Action::OpenRuns { round, state })
                    && let Some(job) = self.world.jobs.get_mut(&id)
                {
                    job.open_runs(round, state);
                }
            }
            Action::OpenParts { round, stage, state } => {
                if self.affords(id, round, stage, &Action::OpenParts { round, stage, state })
                    && let Some(job) = self.world.jobs.get_mut(&id)
                {
                    job.open_parts(round, stage, state);
                }
            }
            Action::RunLocal { round, stage, state } => {
                self.ask(id, Kind::Stage, Vec::new(), |effect| Effect::RunLocal {
                    effect,
                    job: id,
                    round,
                    stage,
                    state,
                });
            }
            Action::Combine { round, stage, parts } => {
                let held: Vec<PayloadId> = payloads(&parts);
                let parts = held.clone();
                self.ask(id, Kind::Stage, held, |effect| Effect::Combine {
                    effect,
                    job: id,
                    round,
                    stage,
                    parts,
                });
            }
            Action::Step { round, state, parts, learning_rate, step } => {
                let held = payloads(&parts);
                self.ask(id, Kind::Step, held, |effect| Effect::Step {
                    effect,
                    job: id,
                    round,
                    state,
                    parts,
                    learning_rate,
                    step,
                });
            }
            Action::Evaluate { state } => {
                self.ask(id, Kind::Evaluate, Vec::new(), |effect| Effect::Evaluate {
                    effect,
                    job: id,
                    state,
                });
            }
            Action::Persist(draft) => {
                if !self.holds_save(id, &draft) {
                    self.persist(id, draft);
                }
            }
            Action::Diverged(diverged) => self.hold_set_back(id, diverged),
            Action::ReleaseState { state } => {
                // What a round may begin from again is kept until that is settled.
                let job = self.world.jobs.get(&id);
                if job.is_none_or(|job| !job.ledger.states().contains(&state)) {
                    self.out.push_back(Effect::ReleaseState { job: id, state });
                }
            }
            Action::End { state, persisted: true } => self.finalize(id, state),
            Action::End { state, persisted: false } => self.begin_end(id, state),
        }
    }

    /// Asks the shell for something that it answers.
    pub(crate) fn ask(
        &mut self,
        job: JobId,
        kind: Kind,
        payloads: Vec<PayloadId>,
        effect: impl FnOnce(EffectId) -> Effect,
    ) -> EffectId {
        let id = EffectId(self.next_effect);
        self.next_effect += 1;
        self.pending.insert(id, Pending { job, kind, payloads });
        if let Some(job) = self.world.jobs.get_mut(&job) {
            job.effects += 1;
        }
        self.out.push_back(effect(id));
        id
    }

    pub(crate) fn persist(&mut self, id: JobId, draft: Draft) {
        self.persist_as(id, draft, Kind::Persist);
    }

    /// Makes a draft durable, with what was accepted and voided since the last record.
    pub(crate) fn persist_as(&mut self, id: JobId, draft: Draft, kind: Kind) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        job.credits_saving = std::mem::take(&mut job.credits);
        let mut record = Box::new(record(id, draft, job.credits_saving.clone()));
        job.voids_saving.append(&mut job.voids);
        job.accepted_saving.append(&mut job.accepted);
        record.voids = job.voids_saving.clone();
        record.accepted = job.accepted_saving.clone();
        record.rounds_paid = job.tally.rounds_paid();
        if record.matures() {
            record.earlier = job.ledger.before.said();
        }
        record.rolled_back = matches!(kind, Kind::RollBack { .. });
        if let Kind::SetBack(set_back) = kind {
            record.set_back = Some(set_back);
        }
        if record.train.is_some() {
            job.contributors = record.contributors;
            job.train = record.train;
        }
        job.evaluation = record.evaluation.or(job.evaluation);
        self.ask(id, kind, Vec::new(), |effect| Effect::Persist { effect, record });
    }

    /// All of the open stage may have been accepted.
    pub(crate) fn stage_progressed(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let Some(stage) = job.stage.take_if(|stage| stage.is_done()) else { return };
        let parts = stage.tree_parts();
        self.tell_stage(id, stage.round);
        self.advance(id, Input::StageFinished { parts });
    }

    pub(crate) fn effect_done(&mut self, id: EffectId, outcome: Result<Outcome, EffectError>) {
        let Some(pending) = self.pending.remove(&id) else {
            self.stats.ignored.unknown_effect += 1;
            return;
        };
        self.release_payloads(pending.payloads.clone());
        if pending.kind == Kind::PersistRefusal {
            return self.refusal_saved(pending.job, outcome);
        }
        let case = self.cases.remove(&id);
        if let Some(case) = &case {
            self.case_left(case);
        }
        if pending.kind == Kind::Step && !self.docket.is_empty() {
            // It is not answered yet: what turns out to be wrong here is not gone back
            // from before it is.
            self.withdraw_parts(pending.job);
        }
        let Some(job) = self.world.jobs.get_mut(&pending.job) else { return };
        job.effects -= 1;
        let ending = job.ending.clone();
        if let Some(case) = case {
            return self.case_answered(pending.job, case, outcome);
        }
        if let Kind::Show { contributor, slice } = pending.kind {
            job.showing.remove(&(contributor, slice));
        }
        if let (Some(_), None, Ok(outcome)) = (job.ledger.back_to, &ending, &outcome) {
            return self.answered_in_vain(pending.job, outcome);
        }
        match (input_of(pending.kind, outcome), ending) {
            (Ok(input), None) => {
                if input == Input::Persisted {
                    job.saved();
                }
                match pending.kind {
                    Kind::RollBack { round } => self.begin_again(pending.job, round),
                    Kind::Pause => self.pause_saved(pending.job),
                    _ => self.advance(pending.job, input),
                }
            }
            (Ok(input), Some(ending)) => self.drained(pending.job, input, ending),
            (Err(error), None) => {
                self.restore_credits(pending.job);
                let (cause, reason) = (Cause::Coordinator, error.to_string());
                self.begin_end(pending.job, JobState::Failed { cause, reason });
            }
            (Err(_), Some(Ending::Saving(_))) => {
                // Nobody can begin or cancel it before its end is durable, so it
                // is offered until the store takes it.
                self.restore_credits(pending.job);
                self.save_end_later(pending.job);
            }
            (Err(_), Some(Ending::Draining(_))) => {
                self.restore_credits(pending.job);
                self.try_save_end(pending.job);
            }
        }
    }

    /// The referee has answered.
    fn case_answered(&mut self, id: JobId, case: Case, outcome: Result<Outcome, EffectError>) {
        match outcome {
            Ok(Outcome::Judged { digest, payload, bytes, agrees }) => {
                let ruling = Ruling { digest, payload, bytes, agrees: &agrees };
                self.ruled(id, case, ruling);
            }
            Ok(Outcome::Invalid { reason }) => self.found_invalid(id, &case, &reason),
            Ok(other) => {
                let reason = format!("the referee was answered by {other:?}");
                self.referee_failed(id, &case, reason);
            }
            Err(error) => self.referee_failed(id, &case, error.to_string()),
        }
        self.try_save_end(id);
    }

    /// The record of a job that was turned away is durable, or is offered again.
    fn refusal_saved(&mut self, id: JobId, outcome: Result<Outcome, EffectError>) {
        if outcome.is_ok() {
            self.turned_away.remove(&id);
            return;
        }
        let Some(refused) = self.turned_away.get_mut(&id) else { return };
        refused.saves_failed = refused.saves_failed.saturating_add(1);
        let failed = refused.saves_failed;
        self.arm_save(id, failed);
    }

    fn save_end_later(&mut self, id: JobId) {
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

    /// Asks for it to be made durable that the session's contributor sees the
    /// slice that `part` shows; false where that is so already.
    pub(crate) fn show_first(&mut self, session: SessionId, id: JobId, part: u32) -> bool {
        let Some(session) = self.world.sessions.get(&session) else { return false };
        if session.profile.operator {
            return false;
        }
        let contributor = session.profile.contributor;
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        let task = job.stage.as_ref().and_then(|stage| stage.tasks.get(&part));
        let Some(slice) = task.and_then(|task| task.demand.slice) else { return false };
        if !job.shown.entry(contributor).or_default().insert(slice) {
            return false;
        }
        job.showing.insert((contributor, slice));
        self.ask(id, Kind::Show { contributor, slice }, Vec::new(), |effect| Effect::Show {
            effect,
            job: id,
            contributor,
            slice,
        });
        true
    }

    /// Credits of a record that did not become durable go into the next.
    fn restore_credits(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let mut credits = std::mem::take(&mut job.credits_saving);
        credits.append(&mut job.credits);
        job.credits = credits;
    }

    /// An effect of a job that is ending was answered.
    fn drained(&mut self, id: JobId, input: Input, ending: Ending) {
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

    fn try_save_end(&mut self, id: JobId) {
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

    /// The job is over and durably so.
    fn finalize(&mut self, id: JobId, state: JobState) {
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

    pub(crate) fn release_payloads(&mut self, payloads: Vec<PayloadId>) {
        if payloads.is_empty() {
            return;
        }
        for payload in &payloads {
            self.payloads.remove(payload);
        }
        self.out.push_back(Effect::ReleasePayloads { payloads });
    }
}

/// The plan's input for an answer, if it is of the kind that was asked for.
fn input_of(kind: Kind, outcome: Result<Outcome, EffectError>) -> Result<Input, EffectError> {
    match (kind, outcome?) {
        (Kind::InitState, Outcome::StateReady { state }) => Ok(Input::StateReady { state }),
        (Kind::Stage, Outcome::StageDone) => Ok(Input::StageDone),
        (Kind::Step, Outcome::Stepped { state, metrics, grad_norm }) => {
            Ok(Input::Stepped { state, metrics, grad_norm })
        }
        (Kind::Step, Outcome::Outnumbered { kept, groups }) => {
            Ok(Input::Outnumbered { kept, groups })
        }
        (Kind::Evaluate, Outcome::Evaluated { metrics }) => Ok(Input::Evaluated { metrics }),
        (
            Kind::Persist | Kind::Pause | Kind::RollBack { .. } | Kind::SetBack(_),
            Outcome::Persisted,
        ) => Ok(Input::Persisted),
        (Kind::Show { .. }, Outcome::Persisted) => Ok(Input::Shown),
        (kind, outcome) => Err(EffectError {
            stage: "shell",
            reason: format!("{kind:?} was answered by {outcome:?}"),
        }),
    }
}

fn record(job: JobId, draft: Draft, credits: Vec<crate::effect::Credit>) -> Record {
    let people: BTreeSet<ContributorId> = credits.iter().map(|credit| credit.contributor).collect();
    Record {
        job,
        phase: draft.state.phase(),
        state: draft.state,
        step: draft.step,
        epoch: draft.epoch,
        weights: draft.weights,
        checkpoint: draft.checkpoint,
        best: draft.best,
        train: draft.train,
        evaluation: draft.evaluation,
        learning_rate: draft.learning_rate,
        contributors: people.len() as u32,
        credits,
        voids: Vec::new(),
        rolled_back: false,
        set_back: None,
        rounds_paid: 0,
        accepted: Vec::new(),
        earlier: None,
    }
}

impl Job {
    /// Graphs that its tasks run.
    pub(crate) fn graphs(&self) -> Vec<GraphId> {
        match &self.sgd.placement {
            Placement::Replica { graph, .. } => vec![*graph],
            Placement::Master { stages, .. } => {
                stages.iter().flat_map(StagePlan::parts).map(|part| part.graph).collect()
            }
        }
    }
}
