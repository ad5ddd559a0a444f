//! Why a job is refused.

use raven_graph::{CutError, GraphError, ModelError};

/// Why a job is refused. Every refusal names the field of the posted document.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A field is outside its domain.
    #[error("{field}: {found} must be {rule}")]
    Field { field: &'static str, rule: String, found: String },
    /// Something is larger than allowed.
    #[error("{field}: {found} {unit} exceed the limit of {limit}")]
    Limit { field: &'static str, unit: &'static str, limit: u64, found: u64 },
    /// The model cannot be built, or does not fit its data.
    #[error("model: {0}")]
    Model(ModelError),
    /// The optimizer or the schedule is refused.
    #[error("{field}: {error}")]
    Graph { field: String, error: GraphError },
    /// The model cannot be cut for placement `master`.
    #[error("placement: {0}")]
    Cut(#[from] CutError),
    /// Even the finest cut would show one contributor more than half of the weights.
    #[error(
        "placement: the model is too small to be divided so that nobody sees more than half of it"
    )]
    Indivisible,
}

impl JobError {
    /// The path of the field at fault.
    pub fn field(&self) -> String {
        match self {
            JobError::Field { field, .. } | JobError::Limit { field, .. } => (*field).into(),
            JobError::Graph { field, .. } => field.clone(),
            JobError::Cut(_) | JobError::Indivisible => "placement".into(),
            JobError::Model(error) => model_field(error),
        }
    }

    /// The limit that was passed and what was found, where it is one.
    pub fn limit(&self) -> Option<(u64, u64)> {
        match self {
            JobError::Limit { limit, found, .. } => Some((*limit, *found)),
            JobError::Model(ModelError::Layers { limit, found }) => {
                Some((*limit as u64, *found as u64))
            }
            JobError::Model(ModelError::Limit { limit, found, .. }) => Some((*limit, *found)),
            JobError::Model(ModelError::Layer { error, .. } | ModelError::Graph { error, .. })
            | JobError::Graph { error, .. } => graph_limit(error),
            _ => None,
        }
    }
}

/// A refused number becomes the document's own field.
pub(super) fn graph_error(fallback: &'static str, error: GraphError) -> JobError {
    let field = match &error {
        GraphError::Parameter { field, .. } => parameter_field(field).to_owned(),
        _ => fallback.to_owned(),
    };
    JobError::Graph { field, error }
}

/// Where the document has what the graph crate calls otherwise.
fn parameter_field(field: &'static str) -> &'static str {
    match field {
        "optimizer.weight_decay" => "training.weight_decay",
        "optimizer.clip_norm" => "training.clip_norm",
        "schedule.learning_rate" => "training.schedule.learning_rate",
        "schedule.every_steps" => "training.schedule.every_steps",
        "schedule.factor" => "training.schedule.factor",
        "schedule.floor" => "training.schedule.floor",
        other => other,
    }
}

fn model_field(error: &ModelError) -> String {
    match error {
        ModelError::NoLayers | ModelError::Layers { .. } => "model.layers".into(),
        ModelError::InputShape { .. } => "model.input_shape".into(),
        ModelError::SampleType { .. } => "dataset".into(),
        ModelError::Loss { .. } => "model.loss".into(),
        ModelError::Graph { .. } => "model".into(),
        ModelError::Field { field, .. } if field == "micro_batch" => "training.micro_batch".into(),
        ModelError::Field { field, .. } | ModelError::Layer { field, .. }
            if field.starts_with("data.") =>
        {
            "dataset".into()
        }
        ModelError::Field { field, .. }
        | ModelError::Limit { field, .. }
        | ModelError::SampleShape { field, .. }
        | ModelError::Target { field, .. }
        | ModelError::SoftmaxTwice { field }
        | ModelError::Layer { field, .. } => format!("model.{field}"),
    }
}

fn graph_limit(error: &GraphError) -> Option<(u64, u64)> {
    match *error {
        GraphError::DocumentBytes { limit, found }
        | GraphError::Elements { limit, found, .. }
        | GraphError::Bytes { limit, found }
        | GraphError::Flops { limit, found } => Some((limit, found)),
        GraphError::Nodes { limit, found }
        | GraphError::Outputs { limit, found }
        | GraphError::Operands { limit, found, .. }
        | GraphError::Rank { limit, found, .. } => Some((limit.into(), found)),
        _ => None,
    }
}
