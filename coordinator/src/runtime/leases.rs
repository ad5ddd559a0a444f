//! Leases of one session as its socket sees them: which answers are in turn.

use super::product::Product;
use super::relaxed::Sketch;
use raven_graph::TensorType;
use raven_protocol::{Encoding, Frame, LeaseId, Seed, TaskId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Ended leases that a session's late answers are recognised by. A session has
/// at most a few hundred leases at once, so anything older is no accident.
const ENDED_MAX: usize = 4096;

/// A commit and a result without tensors take less than this together.
const RESULT_HEAD_BYTES: u64 = 1 << 10;

/// What a task must return, known before it is sent.
#[derive(Debug, PartialEq)]
pub struct Expected {
    /// Outputs in the order in which they are digested.
    pub outputs: Vec<ExpectedOutput>,
}

/// One output.
#[derive(Debug, PartialEq)]
pub struct ExpectedOutput {
    /// Name of the result frame's tensor.
    pub name: String,
    /// How it is written.
    pub encoding: Encoding,
    /// Its exact type.
    pub ty: TensorType,
}

/// Why a result is not one of its task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    #[error("result.tensors: {found} tensors, the task has {expected} outputs")]
    Count { found: usize, expected: usize },
    #[error("result.tensors[{index}].name: output {expected:?} comes here")]
    Name { index: usize, expected: String },
    #[error("result.tensors[{index}]: {found}, output {name:?} is {expected}")]
    Type { index: usize, name: String, found: TensorType, expected: TensorType },
}

impl Expected {
    /// Bytes of the result's frame at most.
    pub fn frame_bytes(&self) -> u64 {
        // A header entry and its padding, beside a name that is in the header.
        const ENTRY_BYTES: u64 = 128;
        let output = |output: &ExpectedOutput| {
            output.ty.bytes().unwrap_or(u64::MAX).saturating_add(output.name.len() as u64)
        };
        let outputs = self.outputs.iter().map(|one| output(one).saturating_add(ENTRY_BYTES));
        outputs.fold(RESULT_HEAD_BYTES, u64::saturating_add)
    }

    /// Checks a result's tensors: names, order and exact types.
    ///
    /// # Errors
    /// [`ResultError`] with the first tensor that is wrong.
    pub fn check(&self, frame: &Frame<'_>) -> Result<(), ResultError> {
        self.check_as(frame, |output| output.ty.clone())
    }

    /// Checks tensors of other types, one per output in their order.
    ///
    /// # Errors
    /// [`ResultError`] with the first tensor that is wrong.
    pub fn check_as(
        &self,
        frame: &Frame<'_>,
        ty: impl Fn(&ExpectedOutput) -> TensorType,
    ) -> Result<(), ResultError> {
        let (found, expected) = (frame.tensors().count(), self.outputs.len());
        if found != expected {
            return Err(ResultError::Count { found, expected });
        }
        for (index, (tensor, output)) in frame.tensors().zip(&self.outputs).enumerate() {
            if tensor.name != output.name {
                return Err(ResultError::Name { index, expected: output.name.clone() });
            }
            let (found, expected) = (tensor.ty(), ty(output));
            if found != expected {
                let name = output.name.clone();
                return Err(ResultError::Type { index, name, found, expected });
            }
        }
        Ok(())
    }
}

/// A lease that this session may answer.
#[derive(Clone, Debug)]
pub struct Held {
    /// The task.
    pub task: TaskId,
    /// What it returns.
    pub expected: Arc<Expected>,
    /// The matrix product that it is, if it is one that is checked.
    pub product: Option<Arc<Product>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The task was sent.
    Leased,
    /// The commitment is here.
    Committed,
    /// So many projections under that key were asked for.
    Projecting { key: Seed, probes: u32 },
    /// The payload was asked for.
    Revealing,
}

/// What an answer to a lease is.
#[derive(Clone, Debug)]
pub enum Answer {
    /// In turn.
    Taken(Held),
    /// Too late: the lease has ended. Harmless.
    Late,
}

/// Why an answer is no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("lease: not one of this session's leases")]
    NotHeld,
    #[error("lease: it was committed already")]
    CommittedTwice,
    #[error("lease: its payload was not asked for")]
    NotAskedFor,
    #[error("lease: no projections of it were asked for")]
    NotProjecting,
}

/// The table. The driver adds, asks and ends; the socket's reader answers.
#[derive(Debug, Default)]
pub struct LeaseTable {
    open: HashMap<LeaseId, (Turn, Held)>,
    /// What was last answered of open leases.
    sketches: HashMap<LeaseId, Arc<Sketch>>,
    ended: HashSet<LeaseId>,
    ended_order: VecDeque<LeaseId>,
}

impl LeaseTable {
    /// Leases that are not answered yet.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is asked for any more.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes of the results that may still come.
    pub fn owed_bytes(&self) -> u64 {
        let owed = self.open.values().map(|(_, held)| held.expected.frame_bytes());
        owed.fold(0, u64::saturating_add)
    }

    /// A task is about to be sent.
    pub fn lease(&mut self, lease: LeaseId, held: Held) {
        self.open.insert(lease, (Turn::Leased, held));
    }

    /// Projections are about to be asked for; false where the lease has ended.
    pub fn project(&mut self, lease: LeaseId, key: Seed, probes: u32) -> bool {
        match self.open.get_mut(&lease) {
            Some((turn @ Turn::Committed, _)) => {
                *turn = Turn::Projecting { key, probes };
                true
            }
            _ => false,
        }
    }

    /// Projections came: what they are of, and how they were asked for; nothing where they are late.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn projected(&mut self, lease: LeaseId) -> Result<Option<(Held, Seed, u32)>, LeaseError> {
        match self.open.get_mut(&lease) {
            Some((turn, held)) => {
                let Turn::Projecting { key, probes } = *turn else {
                    return Err(LeaseError::NotProjecting);
                };
                *turn = Turn::Committed;
                Ok(Some((held.clone(), key, probes)))
            }
            None => self.not_open(lease).map(|_| None),
        }
    }

    /// Notes what was answered: the payload must have the same projections.
    pub fn note_sketch(&mut self, lease: LeaseId, sketch: Arc<Sketch>) {
        if self.open.contains_key(&lease) {
            self.sketches.insert(lease, sketch);
        }
    }

    /// What was answered last.
    pub fn sketch(&self, lease: LeaseId) -> Option<Arc<Sketch>> {
        self.sketches.get(&lease).cloned()
    }

    /// The payload is about to be asked for; false where the lease has ended.
    pub fn reveal(&mut self, lease: LeaseId) -> bool {
        match self.open.get_mut(&lease) {
            Some((turn, _)) => {
                *turn = Turn::Revealing;
                true
            }
            None => false,
        }
    }

    /// The lease is over, whatever comes.
    pub fn end(&mut self, lease: LeaseId) -> Option<Held> {
        let (_, held) = self.open.remove(&lease)?;
        self.sketches.remove(&lease);
        if self.ended_order.len() >= ENDED_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.ended.insert(lease);
        self.ended_order.push_back(lease);
        Some(held)
    }

    fn not_open(&self, lease: LeaseId) -> Result<Answer, LeaseError> {
        if self.ended.contains(&lease) { Ok(Answer::Late) } else { Err(LeaseError::NotHeld) }
    }

    /// A commitment came.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn commit(&mut self, lease: LeaseId) -> Result<Answer, LeaseError> {
        match self.open.get_mut(&lease) {
            Some((turn @ Turn::Leased, held)) => {
                *turn = Turn::Committed;
                Ok(Answer::Taken(held.clone()))
            }
            Some(_) => Err(LeaseError::CommittedTwice),
            None => self.not_open(lease),
        }
    }

    /// A payload came; the lease ends with it.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn result(&mut self, lease: LeaseId) -> Result<Answer, LeaseError> {
        match self.open.get(&lease) {
            Some((Turn::Revealing, _)) => Ok(self.end(lease).map_or(Answer::Late, Answer::Taken)),
            Some(_) => Err(LeaseError::NotAskedFor),
            None => self.not_open(lease),
        }
    }

    /// A lease was handed back.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`].
    pub fn refuse(&mut self, lease: LeaseId) -> Result<Answer, LeaseError> {
        match self.end(lease) {
            Some(held) => Ok(Answer::Taken(held)),
            None => self.not_open(lease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_protocol::JobId;

    fn held() -> Held {
        let task = TaskId { job: JobId(1), round: 0, stage: 0, part: 0 };
        let expected = Arc::new(Expected { outputs: Vec::new() });
        Held { task, expected, product: None }
    }

    #[test]
    fn answers_out_of_turn_are_told_from_late_ones() {
        let mut table = LeaseTable::default();
        let (mine, foreign) = (LeaseId(1), LeaseId(2));
        table.lease(mine, held());
        assert_eq!(table.result(mine).err(), Some(LeaseError::NotAskedFor));
        assert_eq!(table.commit(foreign).err(), Some(LeaseError::NotHeld));
        assert!(matches!(table.commit(mine), Ok(Answer::Taken(_))));
        assert_eq!(table.commit(mine).err(), Some(LeaseError::CommittedTwice));
        assert_eq!(table.result(mine).err(), Some(LeaseError::NotAskedFor));
        assert!(table.reveal(mine));
        assert!(matches!(table.result(mine), Ok(Answer::Taken(_))));
        assert!(matches!(table.result(mine), Ok(Answer::Late)));
        assert!(matches!(table.commit(mine), Ok(Answer::Late)));
        assert!(!table.reveal(mine));
    }

    #[test]
    fn projections_are_answered_once_for_each_time_that_they_are_asked_for() {
        let mut table = LeaseTable::default();
        let lease = LeaseId(1);
        table.lease(lease, held());
        assert!(!table.project(lease, Seed(1), 32), "not before its commitment");
        assert_eq!(table.projected(lease).err(), Some(LeaseError::NotProjecting));
        table.commit(lease).expect("in turn");
        assert_eq!(table.projected(lease).err(), Some(LeaseError::NotProjecting));
        for key in [Seed(1), Seed(2)] {
            assert!(table.project(lease, key, 32));
            assert!(!table.project(lease, key, 32), "not while an answer is awaited");
            let answered = table.projected(lease).expect("in turn").expect("in time");
            assert_eq!((answered.1, answered.2), (key, 32));
        }
        assert_eq!(table.projected(lease).err(), Some(LeaseError::NotProjecting));
        assert_eq!(table.result(lease).err(), Some(LeaseError::NotAskedFor));
        table.end(lease);
        assert!(matches!(table.projected(lease), Ok(None)), "late, and harmless");
        assert_eq!(table.projected(LeaseId(9)).err(), Some(LeaseError::NotHeld));
    }

    #[test]
    fn the_memory_of_ended_leases_is_bounded() {
        let mut table = LeaseTable::default();
        for id in 0..2 * ENDED_MAX as u128 {
            table.lease(LeaseId(id), held());
            table.end(LeaseId(id));
        }
        assert_eq!(table.ended.len(), ENDED_MAX);
        assert_eq!(table.commit(LeaseId(0)).err(), Some(LeaseError::NotHeld));
    }
}
