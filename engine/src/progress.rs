//! Jobs move on: plans' actions become effects, effects' ends become inputs.

use crate::active::Job;
use crate::algorithm::{Action, Draft, Input};
use crate::effect::{Effect, EffectId, Record, SetBack};
use crate::ending::Ending;
use crate::engine::Engine;
use crate::event::{ContributorId, EffectError, Outcome, PayloadId};
use crate::job::{Cause, JobState};
use crate::plan::{JobPlan, Placement, ResumePoint, StagePlan};
use crate::terms::Terms;
use crate::timer::Timer;
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
        if self.holds_round(id, &action) || !self.affords(id, &action) {
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
                if let Some(job) = self.world.jobs.get_mut(&id) {
                    job.open_runs(round, state);
                }
            }
            Action::OpenParts { round, stage, state } => {
                if let Some(job) = self.world.jobs.get_mut(&id) {
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

pub(crate) fn record(job: JobId, draft: Draft, credits: Vec<crate::effect::Credit>) -> Record {
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
