//! From a job document and a data set to graphs and a plan. Pure: the same
//! document always comes to the same graphs, which is how a restarted
//! coordinator goes on with its jobs.

use super::combine::RoundSizes;
use super::error::graph_error;
use super::quote::{held, operator_cost_max};
use super::sizes::{self, RUN_FLOPS_MAX, Weighed, bytes};
use super::sliced::SlicedCut;
use super::terms::{FALLBACK_AFTER_S_MAX, JobTerms};
use super::{
    DataContext, JobContext, JobError, JobFacts, JobSpec, OnDivergence, PlacementKind, RowGraph,
    StepGraph, TensorSpec,
};
use crate::dataset::{DatasetFacts, Target, X_COLUMN, Y_COLUMN};
use raven_engine::{Algorithm, Allowance, EarlyStopping, JobPlan, Placement, Rates, SyncSgd};
use raven_graph::{
    DType, DataSpec, Limits, LoweredModel, ParamSpec, TensorType, ValidGraph, lower, step_graph,
};
use raven_protocol::limits::MICRO_BATCHES_MAX;
use raven_protocol::{Encoding, JobId, KernelId, OutputSpec, ReduceRule, Seed, ShardRef};
use std::sync::Arc;

/// Bytes of a job's name; it is shown on pages.
const NAME_BYTES_MAX: usize = 100;
const EPOCHS_MAX: u32 = 10_000;
/// Optimizer steps of one job: its rounds are rows of a table.
const STEPS_MAX: u64 = 10_000_000;

/// What the document is lowered for.
#[derive(Clone, Debug)]
pub struct Lowering<'a> {
    pub job: JobId,
    pub seed: Seed,
    pub kernel: KernelId,
    pub dataset: &'a DatasetFacts,
    pub train_shards: Vec<ShardRef>,
    pub test_shards: Vec<ShardRef>,
}

/// Validates and lowers a job. Takes up to seconds for the largest models.
///
/// # Errors
/// [`JobError`] with the path of the field at fault.
pub fn lower_job(
    spec: &JobSpec,
    lowering: Lowering<'_>,
) -> Result<(JobContext, JobFacts), JobError> {
    check(spec, lowering.dataset)?;
    let limits = Limits { flops_max: RUN_FLOPS_MAX, ..Limits::default() };
    let rows = match spec.placement {
        PlacementKind::Replica => spec.training.micro_batch,
        // The values of one round stay together, so one run covers the batch.
        PlacementKind::Master => spec.training.batch,
    };
    let data = data_spec(lowering.dataset);
    let model = &spec.model;
    let train = lower(model, &data, rows, &limits).map_err(JobError::Model)?;
    let evaluate = if rows == spec.training.micro_batch {
        train.evaluate.clone()
    } else {
        let micro_batch = spec.training.micro_batch;
        lower(model, &data, micro_batch, &limits).map_err(JobError::Model)?.evaluate
    };
    if train.params.is_empty() {
        let (rule, found) = ("a list with a layer that has weights", "nothing to train");
        return Err(field("model.layers", rule, found));
    }
    let step = step_graph(&train.params, &spec.optimizer(), &limits)
        .map_err(|error| graph_error("optimizer", error))?;
    let facts = facts(spec, lowering.dataset, &train);
    sizes::check(&Weighed {
        model: &train,
        evaluate: &evaluate,
        evaluate_rows: spec.training.micro_batch,
        step: &step,
        facts: &facts,
        dataset: lowering.dataset,
        placement: spec.placement,
        groups: spec.training.combine.groups(),
    })?;
    let cut = match spec.placement {
        PlacementKind::Replica => None,
        PlacementKind::Master => {
            let names: Vec<String> = train.params.iter().map(|p| p.name.clone()).collect();
            Some(SlicedCut::of(&train.train, &names)?)
        }
    };
    let placement = placement(&train.train, cut.as_ref());
    sizes::check_parts(&placement)?;
    let plan = plan(spec, rows, &lowering, &facts, placement);
    let data = DataContext {
        x_column: X_COLUMN.into(),
        y_column: Y_COLUMN.into(),
        train_rows: lowering.dataset.train_rows,
        train_shards: lowering.train_shards,
        test_rows: lowering.dataset.test_rows,
        test_shards: lowering.test_shards,
    };
    let context = JobContext {
        plan,
        name: spec.name.clone(),
        listed: spec.listed,
        terms: terms(spec, &facts),
        params: tensors(&train.params),
        slots: tensors(&step.slots),
        step: step_context(&train.params, &step.slots, step.graph),
        evaluate: row_graph(evaluate, spec.training.micro_batch, &[]),
        train: row_graph(train.train, rows, &train.params),
        init: Arc::new(train.init),
        combine: spec.training.combine,
        data,
        cut: cut.map(|sliced| sliced.cut),
    };
    Ok((context, facts))
}

/// The job's terms: what it may cost is at most what it holds.
pub(crate) fn terms(spec: &JobSpec, facts: &JobFacts) -> JobTerms {
    let operator_cost_max = operator_cost_max(spec, facts);
    let (rates, allowance) = (facts.rates, Some(facts.allowance(spec.verification)));
    JobTerms { escrow: held(spec, facts), operator_cost_max, rates, allowance, ..spec.terms() }
}

fn field(field: &'static str, rule: &str, found: impl ToString) -> JobError {
    JobError::Field { field, rule: rule.into(), found: found.to_string() }
}

/// Checks what does not depend on the model.
fn check(spec: &JobSpec, data: &DatasetFacts) -> Result<(), JobError> {
    let name_bytes = spec.name.len();
    if spec.name.trim().is_empty() || name_bytes > NAME_BYTES_MAX {
        return Err(field("name", "1 to 100 bytes", format!("{name_bytes} bytes")));
    }
    if spec.fallback_after_s > FALLBACK_AFTER_S_MAX {
        let (limit, found) = (FALLBACK_AFTER_S_MAX.into(), spec.fallback_after_s.into());
        return Err(JobError::Limit { field: "fallback_after_s", unit: "seconds", limit, found });
    }
    let training = &spec.training;
    if !(1..=EPOCHS_MAX).contains(&training.epochs) {
        return Err(field("training.epochs", "1 to 10000", training.epochs));
    }
    if !(1..=data.train_rows).contains(&training.batch) {
        let rule = format!("1 to {}, the data set's training rows", data.train_rows);
        return Err(field("training.batch", &rule, training.batch));
    }
    if training.micro_batch == 0 || !training.batch.is_multiple_of(training.micro_batch) {
        let rule = format!("a divisor of the batch of {}", training.batch);
        return Err(field("training.micro_batch", &rule, training.micro_batch));
    }
    let runs = training.batch / training.micro_batch;
    if runs > MICRO_BATCHES_MAX {
        let (limit, found) = (MICRO_BATCHES_MAX.into(), runs.into());
        let (field, unit) = ("training.micro_batch", "micro-batches in a batch");
        return Err(JobError::Limit { field, unit, limit, found });
    }
    let left_over = (data.train_rows % training.batch).div_ceil(training.micro_batch);
    let last = if left_over == 0 { runs } else { left_over };
    training.combine.check(spec.placement, RoundSizes { whole: runs, last })?;
    let steps = u64::from(training.epochs) * u64::from(data.train_rows.div_ceil(training.batch));
    if steps > STEPS_MAX {
        let (limit, found) = (STEPS_MAX, steps);
        let (field, unit) = ("training.epochs", "optimizer steps");
        return Err(JobError::Limit { field, unit, limit, found });
    }
    let min_delta = training.early_stopping.map_or(0.0, |early| early.min_delta);
    if !min_delta.is_finite() || min_delta < 0.0 {
        let name = "training.early_stopping.min_delta";
        return Err(field(name, "finite and not negative", min_delta));
    }
    if let Some(rule) = &training.on_divergence {
        rule.check()?;
    }
    training.schedule.check().map_err(|error| graph_error("training.schedule", error))
}

fn data_spec(dataset: &DatasetFacts) -> DataSpec {
    let features = &dataset.features;
    DataSpec {
        features: TensorType::new(features.dtype, features.shape.as_slice()),
        scale: dataset.scale,
        target: match dataset.target {
            Target::Classes { classes } => raven_graph::Target::Classes { count: classes },
            Target::Values { width } => raven_graph::Target::Values { width },
        },
    }
}

fn tensors(params: &[ParamSpec]) -> Vec<TensorSpec> {
    let tensor = |param: &ParamSpec| TensorSpec {
        name: param.name.clone(),
        ty: TensorType::new(DType::F32, param.shape.clone()),
    };
    params.iter().map(tensor).collect()
}

fn facts(spec: &JobSpec, data: &DatasetFacts, model: &LoweredModel) -> JobFacts {
    let training = &spec.training;
    let steps_per_epoch = data.train_rows.div_ceil(training.batch);
    // One run covers a micro-batch, or in placement `master` a whole batch.
    let run_rows = match spec.placement {
        PlacementKind::Replica => training.micro_batch,
        PlacementKind::Master => training.batch,
    };
    let runs = u64::from(data.train_rows / training.batch) * u64::from(training.batch / run_rows)
        + u64::from((data.train_rows % training.batch).div_ceil(run_rows));
    let flops = u128::from(model.train.cost().flops) * u128::from(runs);
    let flops = flops * u128::from(training.epochs);
    JobFacts {
        params: model.params.clone(),
        parameters: bytes(&model.params) / DType::F32.bytes(),
        weights_bytes: bytes(&model.params),
        steps_per_epoch,
        steps: steps_per_epoch * training.epochs,
        flops_planned: u64::try_from(flops).unwrap_or(u64::MAX),
        rates: Rates::default(),
        allowance: Some(Allowance::usual(spec.verification)),
    }
}

fn row_graph(graph: ValidGraph, rows: u32, params: &[ParamSpec]) -> RowGraph {
    let outputs = graph.outputs().iter().map(|output| OutputSpec {
        name: output.name.clone(),
        encoding: Encoding::Raw,
        reduce: ReduceRule::Sum,
    });
    RowGraph {
        outputs: outputs.collect(),
        graph: Arc::new(graph),
        x: "x".into(),
        y: "y".into(),
        mask: "w".into(),
        rows,
        loss_sum: "loss".into(),
        correct: "correct".into(),
        count: "count".into(),
        gradients: params.iter().map(|param| format!("grad.{}", param.name)).collect(),
    }
}

fn step_context(params: &[ParamSpec], slots: &[ParamSpec], graph: ValidGraph) -> StepGraph {
    StepGraph {
        gradients: params.iter().map(|param| format!("grad.{}", param.name)).collect(),
        count: "count".into(),
        learning_rate: "lr".into(),
        // Only some rules read it; an input that nothing reads may be gone.
        step: graph.input("step").map(|input| input.name.clone()),
        next: params.iter().chain(slots).map(|tensor| tensor.name.clone()).collect(),
        grad_norm: "grad_norm".into(),
        graph: Arc::new(graph),
    }
}

fn placement(train: &ValidGraph, cut: Option<&SlicedCut>) -> Placement {
    if let Some(sliced) = cut {
        return sliced.placement();
    }
    let cost = train.cost();
    Placement::Replica {
        graph: train.id(),
        flops: cost.flops,
        bytes_peak: cost.bytes_peak,
        result_bytes: cost.bytes_out,
    }
}

/// The engine's view; `rows` are those of one run.
fn plan(
    spec: &JobSpec,
    rows: u32,
    lowering: &Lowering<'_>,
    facts: &JobFacts,
    placement: Placement,
) -> JobPlan {
    let training = &spec.training;
    JobPlan {
        job: lowering.job,
        category: spec.category,
        seed: lowering.seed,
        numerics: spec.numerics,
        verification: spec.verification,
        kernel: lowering.kernel,
        algorithm: Algorithm::SyncSgd(SyncSgd {
            train_rows: lowering.dataset.train_rows,
            batch: training.batch,
            micro_batch: rows,
            epochs: training.epochs,
            schedule: training.schedule,
            early_stopping: training.early_stopping.map(|early| EarlyStopping {
                patience: early.patience,
                min_delta: early.min_delta,
            }),
            divergence: training.on_divergence.map(OnDivergence::rule),
            placement,
            groups: training.combine.groups(),
            shards: lowering.train_shards.clone(),
            weights_bytes: facts.weights_bytes,
        }),
    }
}
