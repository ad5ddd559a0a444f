//! What the engine asks for is done, answered and compared with the truth.

use crate::adversary::Cost;
use crate::kernel::{Value, digest_of};
use crate::relaxed::Vector;
use crate::sim::{CEILING, Happening, Sim};
use raven_engine::{
    ContributorId, Effect, EffectError, Outcome as Answer, PayloadId, TreePart, Trust, Work,
};
use raven_protocol::{JobId, TaskId};

impl Sim {
    pub(crate) fn execute(&mut self, effect: Effect) {
        if let Effect::Combine { job, round, stage, parts, .. } = &effect {
            self.compare_parts(*job, *round, *stage, parts);
        }
        self.plan_answer(&effect);
        match effect {
            Effect::Send { session, message } => self.send_down(session, message),
            Effect::Close { session, .. } => {
                if let Some(node) = self.sessions.remove(&session) {
                    self.disconnect_from(node, session);
                }
                // The socket's end is reported like any other.
                self.at(self.now, Happening::Noticed { session });
            }
            Effect::Fold { job, round, part, .. } => {
                self.compare(job, round, part);
                let begin = self.reducing_until.max(self.now);
                self.reducing_until = begin + self.scenario.faults.reduce_us;
            }
            Effect::RolledBack { job, round } => {
                let is_undone = |task: &TaskId| task.job == job && task.round >= round;
                self.truth.standing.retain(|task| !is_undone(task));
                self.truth.off.retain(|task, _| !is_undone(task));
            }
            Effect::Trust { identity, trust } => {
                if trust == Trust::Excluded {
                    self.excluded(identity.contributor);
                }
                self.truth.trust.insert(identity, trust);
            }
            Effect::ReleasePayloads { payloads } => {
                for payload in payloads {
                    self.shell.release(payload);
                }
            }
            Effect::ReleaseState { job, state } => {
                self.shell.states.remove(&(job, state));
            }
            Effect::Persist { record, .. } => {
                if record.train.is_some() {
                    let stats = self.engine.counts();
                    let (refereed, accepted) = (stats.referee_flops, stats.flops_accepted);
                    let executed = self.truth.executed;
                    self.truth.costs.push(Cost { executed, refereed, accepted });
                    self.step_times.entry(record.job).or_default().push(self.now);
                }
                if record.phase.is_end() {
                    self.ended.insert(record.job, self.now);
                }
                self.shell.records.entry(record.job).or_default().push(*record);
            }
            _ => {}
        }
    }

    /// Runs what is answered, and plans its answer: it takes a while, and may fail.
    fn plan_answer(&mut self, effect: &Effect) {
        let Some((id, answer)) = self.shell.run(effect) else { return };
        let faults = self.scenario.faults;
        // A step waits for the results that are still being reduced.
        let reducing = match effect {
            Effect::Step { .. } => self.reducing_until.saturating_sub(self.now),
            _ => 0,
        };
        let wait = self.rng.between(faults.effect_us_min, faults.effect_us_max) + reducing;
        let is_down =
            self.store_is_down() && matches!(effect, Effect::Persist { .. } | Effect::Show { .. });
        let answer = if self.rng.chance(faults.effect_failure) || is_down {
            if let Answer::Judged { payload, .. } = answer {
                self.shell.release(payload);
            }
            let job = match effect {
                Effect::InitState { job, .. } | Effect::Step { job, .. } => Some(*job),
                _ => None,
            };
            if let (Some(job), Answer::StateReady { state } | Answer::Stepped { state, .. }) =
                (job, answer)
            {
                self.shell.states.remove(&(job, state));
            }
            Err(EffectError { stage: "store", reason: "the disk is full".into() })
        } else {
            Ok(answer)
        };
        self.auditor.will_answer(id, &answer);
        self.after(wait, Happening::Effect { effect: id, answer });
    }

    /// Notes how soon a cheat is found out, and who is taken for one wrongly.
    fn excluded(&mut self, contributor: ContributorId) {
        let truth = &mut self.truth;
        let first_lie = truth.first_lies.get(&contributor);
        if truth.excluded.insert(contributor)
            && let Some(first_lie) = first_lie
        {
            truth.exclusions.push(self.now - first_lie);
        }
        if !truth.cheats.contains(&contributor) {
            truth.wronged.insert(contributor);
        }
    }

    /// Counts the results of a pushed stage that are not what its parts yield.
    fn compare_parts(&mut self, job: JobId, round: u32, stage: u32, parts: &[PayloadId]) {
        for (part, payload) in (0..).zip(parts) {
            let task = TaskId { job, round, stage, part };
            let Some(work @ Work::Part { .. }) = self.truth.work.get(&task).cloned() else {
                continue;
            };
            let truth = self.shell.kernel.run(task, &work);
            self.count(task, *payload, truth);
        }
    }

    /// Counts a result that is combined and is not what its run yields.
    fn compare(&mut self, job: JobId, round: u32, part: TreePart) {
        let task = TaskId { job, round, stage: 0, part: part.start };
        let Some(&Work::Replica { state, .. }) = self.truth.work.get(&task) else { return };
        let work = Work::Replica { state, start: part.start, count: part.count };
        let truth = self.shell.kernel.run(task, &work);
        self.count(task, part.payload, truth);
    }

    fn count(&mut self, task: TaskId, payload: PayloadId, truth: Value) {
        let combined = self.shell.payloads.get(&payload).copied();
        let vector = self.shell.vectors.get(&payload);
        let is_far = |vector: &Vector| vector.off(truth) > CEILING;
        let is_false =
            |vector: &Vector| self.truth.false_results.contains_key(&(task, vector.digest(task)));
        // An honest one at a kink is what an honest network comes to.
        let is_honest = vector.is_none_or(|vector| !is_far(vector) || !is_false(vector));
        if let Some(vector) = vector.filter(|vector| !is_far(vector) || is_false(vector)) {
            self.truth.off.insert(task, vector.off(truth));
        }
        if combined != Some(truth) || !is_honest {
            self.truth.combined += 1;
            let digest = match (vector, combined) {
                (Some(vector), _) => Some(vector.digest(task)),
                (None, combined) => combined.map(|value| digest_of(task, value)),
            };
            let liars = digest.and_then(|digest| self.truth.false_results.get(&(task, digest)));
            for &who in liars.into_iter().flatten() {
                *self.truth.combined_of.entry(who).or_default() += 1;
            }
            self.truth.standing.insert(task);
        }
    }

    fn store_is_down(&self) -> bool {
        let down = self.scenario.faults.store_down;
        down.is_some_and(|(from, to)| (from..to).contains(&self.now))
    }
}
