//! Effects that are asked for and answered, and the payloads and states that they read:
//! nothing is read after its release, and no state before it is durable.

use super::Auditor;
use crate::ids::IdMap;
use raven_engine::{EffectError, EffectId, Outcome, PayloadId, Record};
use raven_protocol::{BlobId, JobId};
use std::hash::Hash;

/// The effect that an id stands for.
#[derive(Clone, Debug)]
pub(super) struct ModelEffect {
    pub(super) job: JobId,
    pub(super) reads: Vec<PayloadId>,
    pub(super) state: Option<BlobId>,
    pub(super) record: Option<Box<Record>>,
    pub(super) shows: Option<(raven_engine::ContributorId, u32)>,
    pub(super) answered: Option<Result<Outcome, EffectError>>,
}

impl Auditor {
    pub(super) fn asked(
        &mut self,
        id: EffectId,
        job: JobId,
        reads: Vec<PayloadId>,
        state: Option<BlobId>,
        record: Option<Box<Record>>,
    ) {
        for payload in &reads {
            assert!(self.payloads.contains(payload), "{id:?} reads a released payload");
            *self.payload_readers.entry(*payload).or_default() += 1;
        }
        if let Some(state) = state {
            assert!(self.states.contains(&(job, state)), "{id:?} reads a released state");
            let durable = self.jobs[&job].durable.contains(&state);
            assert!(durable, "{id:?} reads a state that is not durable");
            *self.state_readers.entry((job, state)).or_default() += 1;
        }
        let effect = ModelEffect { job, reads, state, record, shows: None, answered: None };
        assert!(self.effects.insert(id, effect).is_none(), "{id:?} was used twice");
    }

    /// What an effect is going to be answered by.
    pub fn will_answer(&mut self, id: EffectId, answer: &Result<Outcome, EffectError>) {
        let effect = self.effects.get_mut(&id).expect("the effect was asked for");
        assert!(effect.answered.is_none(), "{id:?} is answered twice");
        effect.answered = Some(answer.clone());
        if let Ok(Outcome::StateReady { state } | Outcome::Stepped { state, .. }) = answer {
            let is_new = self.states.insert((effect.job, *state));
            assert!(is_new, "state {state} was made twice");
        }
    }

    pub(super) fn effect_done(&mut self, id: EffectId, outcome: &Result<Outcome, EffectError>) {
        if let Ok(Outcome::Judged { payload, .. }) = outcome {
            assert!(self.payloads.insert(*payload), "{payload:?} was used twice");
        }
        let effect = self.effects.remove(&id).expect("an answered effect was asked for");
        for payload in &effect.reads {
            no_longer(&mut self.payload_readers, payload);
        }
        if let Some(state) = effect.state {
            no_longer(&mut self.state_readers, &(effect.job, state));
        }
        let job = self.jobs.get_mut(&effect.job).expect("an effect is of a job");
        if let (Some((contributor, slice)), Ok(_)) = (effect.shows, outcome) {
            job.shown.entry(contributor).or_default().insert(slice);
        }
        let Some(record) = effect.record else { return };
        job.saving = false;
        let paying = std::mem::take(&mut job.paying);
        if outcome.is_ok() {
            job.durable.extend(record.weights);
            job.books.enter(&record);
            job.ended |= record.phase.is_end();
            let paid = paying.into_iter().map(|credit| ((credit.task, credit.attempt), credit));
            job.paid.extend(paid);
        } else {
            job.failed_saves = true;
            job.unpaid.extend(paying.into_iter().map(|credit| (credit.task, credit)));
        }
    }

    pub(super) fn released(&mut self, payloads: &[PayloadId]) {
        for payload in payloads {
            assert!(self.payloads.remove(payload), "{payload:?} was released twice");
            let is_read = self.payload_readers.contains_key(payload);
            assert!(!is_read, "{payload:?} is released while it is read");
        }
    }

    pub(super) fn released_state(&mut self, job: JobId, state: BlobId) {
        assert!(self.states.remove(&(job, state)), "state {state} was released twice");
        let is_read = self.state_readers.contains_key(&(job, state));
        assert!(!is_read, "state {state} is released while it is read");
    }
}

/// One reader less.
fn no_longer<K: Eq + Hash>(readers: &mut IdMap<K, u32>, key: &K) {
    let count = readers.get_mut(key).expect("it was read");
    *count -= 1;
    if *count == 0 {
        readers.remove(key);
    }
}
