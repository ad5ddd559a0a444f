//! What the driver keeps of a running job: states, row order, frames, progress.

use super::link::About;
use super::live::Progress;
use crate::job::JobContext;
use crate::runtime::executor::{ExecutorError, Group, RoundValues, RowSource, State, Tensor};
use crate::runtime::relaxed::{Bounds, Relaxed};
use axum::body::Bytes;
use raven_engine::{Algorithm, Category, EpochOrder, Placement, SyncSgd};
use raven_graph::cut::Stage;
use raven_graph::{GraphId, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{BlobId, GraphText, JobCategory, Numerics, ToContributor};
use std::collections::HashMap;
use std::sync::Arc;

/// Mean losses of a task and of the round before it that differ by more are looked at.
const LOSS_RATIO_MAX: f32 = 4.0;
/// Mean loss below which that says nothing.
const LOSS_NOTED_MIN: f32 = 0.05;

/// A job as it is handed to the driver.
#[derive(Debug)]
pub struct NewJob {
    /// Graphs and facts.
    pub context: Arc<JobContext>,
    /// The pseudonym of whoever owns it.
    pub requester: String,
    /// The state to go on from, where the job was begun before.
    pub state: Option<Arc<State>>,
    /// Master placement: the training rows.
    pub rows: Option<RowSource>,
}

/// A running job.
#[derive(Debug)]
pub struct Job {
    pub(super) context: Arc<JobContext>,
    pub(super) requester: String,
    pub(super) progress: Progress,
    /// Of its GPUs.
    pub(super) relaxed: Relaxed,
    /// By id, with how often it was made: equal states have one id.
    states: HashMap<BlobId, (Arc<State>, u32)>,
    order: Option<EpochOrder>,
    graphs: HashMap<GraphId, Bytes>,
    pub(super) rows: Option<Arc<RowSource>>,
    /// Master placement: the values of the round that is going on.
    pub(super) round: Option<(u32, RoundValues)>,
    /// Mean loss of the last round.
    pub(super) last_loss: Option<f32>,
}

impl Job {
    pub(super) fn new(job: NewJob) -> Self {
        let NewJob { context, requester, state, rows } = job;
        let mut job = Job {
            context,
            requester,
            progress: Progress::default(),
            relaxed: Relaxed::default(),
            states: HashMap::new(),
            order: None,
            graphs: HashMap::new(),
            rows: rows.map(Arc::new),
            round: None,
            last_loss: None,
        };
        if let Some(state) = state {
            job.keep_state(state);
        }
        job
    }

    /// What the visitor is told of it.
    pub(super) fn about(&self) -> About {
        let category = match self.context.plan.category {
            Category::Vision => JobCategory::Vision,
            Category::Language => JobCategory::Language,
            Category::Tabular => JobCategory::Tabular,
            Category::Science => JobCategory::Science,
            Category::Finance => JobCategory::Finance,
            Category::Other => JobCategory::Other,
        };
        About { requester: self.requester.clone(), category }
    }

    /// Whether the loss of a result is far from that of the round before.
    pub(super) fn is_unlikely(&self, values: &HashMap<String, Tensor>) -> bool {
        let train = &self.context.train;
        let scalar = |name: &str| values.get(name).and_then(Tensor::as_scalar);
        let (Some(before), Some(sum), Some(count)) =
            (self.last_loss, scalar(&train.loss_sum), scalar(&train.count))
        else {
            return false;
        };
        let ratio = sum / count / before;
        // Losses that are nearly nothing already jump about.
        before > LOSS_NOTED_MIN && !(1.0 / LOSS_RATIO_MAX..=LOSS_RATIO_MAX).contains(&ratio)
    }

    pub(super) fn keep_state(&mut self, state: Arc<State>) {
        self.states.entry(state.id()).or_insert((state, 0)).1 += 1;
    }

    pub(super) fn release_state(&mut self, id: BlobId) {
        if let Some((_, made)) = self.states.get_mut(&id) {
            *made -= 1;
            if *made == 0 {
                self.states.remove(&id);
            }
        }
    }

    /// A state that the engine has not released.
    ///
    /// # Errors
    /// [`ExecutorError::Missing`], a fault of this process.
    pub(super) fn state(&self, id: BlobId) -> Result<Arc<State>, ExecutorError> {
        let state = self.states.get(&id).map(|(state, _)| state.clone());
        state.ok_or_else(|| ExecutorError::Missing { name: format!("state {id}") })
    }

    pub(super) fn sgd(&self) -> &SyncSgd {
        let Algorithm::SyncSgd(sgd) = &self.context.plan.algorithm;
        sgd
    }

    /// The row order of the epoch that `round` belongs to; shuffled once an epoch.
    pub(super) fn order(&mut self, round: u32) -> Result<&EpochOrder, ExecutorError> {
        let known =
            self.order.as_ref().map(|order| (order.layout().epoch_of(round), order.epoch()));
        if known.is_none_or(|(wanted, epoch)| wanted != epoch) {
            let refuse = |error: raven_engine::LayoutError| ExecutorError::Missing {
                name: format!("row order ({error})"),
            };
            let layout = raven_engine::Layout::of(self.sgd()).map_err(refuse)?;
            let epoch = layout.epoch_of(round);
            let order = EpochOrder::new(self.sgd(), self.context.plan.seed, epoch);
            self.order = Some(order.map_err(refuse)?);
        }
        self.order.as_ref().ok_or_else(|| ExecutorError::Missing { name: "row order".into() })
    }

    /// Whether its results are compared within bounds.
    pub(super) fn is_relaxed(&self) -> bool {
        self.context.plan.numerics == Numerics::Relaxed
    }

    /// Within which results of GPUs are compared.
    pub(super) fn bounds(&self) -> Bounds {
        let bounds = self.relaxed.bounds(&self.context.train.correct);
        if self.is_replica() { bounds } else { bounds.linear() }
    }

    /// What the job's rule combines in `round`; nothing where gradients are only added.
    pub(super) fn groups(&mut self, round: u32) -> Result<Vec<Group>, ExecutorError> {
        let context = self.context.clone();
        Ok(Group::of_round(&context, self.order(round)?, round))
    }

    /// The frame that introduces a graph; encoded once.
    pub(super) fn graph_frame(&mut self, id: GraphId) -> Result<Bytes, ExecutorError> {
        if let Some(frame) = self.graphs.get(&id) {
            return Ok(frame.clone());
        }
        let graph = self.find_graph(id);
        let graph = graph.ok_or_else(|| ExecutorError::Missing { name: format!("graph {id}") })?;
        let message = ToContributor::Graph { id, graph: GraphText::of(graph) };
        let frame = Bytes::from(encode(&message, &[]));
        self.graphs.insert(id, frame.clone());
        Ok(frame)
    }

    fn find_graph(&self, id: GraphId) -> Option<&ValidGraph> {
        if self.context.train.graph.id() == id {
            return Some(&self.context.train.graph);
        }
        let stages = self.context.cut.iter().flat_map(|cut| &cut.stages);
        let pushed = stages.filter_map(|stage| match stage {
            Stage::Pushed(entries) => Some(entries),
            Stage::Local(_) => None,
        });
        let mut parts = pushed.flatten().flat_map(|entry| &entry.parts);
        parts.find(|part| part.graph.id() == id).map(|part| &part.graph)
    }

    /// A graph that tasks run.
    ///
    /// # Errors
    /// [`ExecutorError::Missing`], a fault of this process.
    pub(super) fn graph(&self, id: GraphId) -> Result<ValidGraph, ExecutorError> {
        let graph = self.find_graph(id).cloned();
        graph.ok_or_else(|| ExecutorError::Missing { name: format!("graph {id}") })
    }

    /// Whether contributors hold the model.
    pub(super) fn is_replica(&self) -> bool {
        matches!(self.sgd().placement, Placement::Replica { .. })
    }
}
