//! Placement `master`: the coordinator holds the model, and contributors compute parts
//! of a round's stages on operands that are cut out of the round's values.

use super::job::Job;
use super::task::{Attachments, Draft, task_seed};
use crate::runtime::executor::{ExecutorError, RoundStart, RoundValues, Tensor, attached};
use crate::runtime::leases::{Expected, ExpectedOutput};
use crate::runtime::product::Product;
use raven_engine::Verification;
use raven_graph::cut::{Part as CutPart, Stage};
use raven_protocol::{BlobId, Encoding, OutputSpec, Program, ReduceRule, TaskSpec};
use std::collections::HashMap;
use std::sync::Arc;

impl Job {
    pub(super) fn part_spec(
        &mut self,
        round: u32,
        state: BlobId,
        stage: u32,
        part: u32,
    ) -> Result<Draft, ExecutorError> {
        self.begin_round(round, state)?;
        let part = self.part(stage, part)?;
        let attached_bytes: u64 =
            part.graph.inputs().iter().filter_map(|input| input.ty.bytes()).sum();
        let values = self.round_values()?;
        let is_checked = self.context.plan.verification != Verification::None;
        let product = is_checked.then(|| Product::of(part, &values)).flatten();
        let attachments = Attachments::Cut {
            inputs: part.inputs.clone(),
            values,
            bytes: usize::try_from(attached_bytes).unwrap_or(usize::MAX),
        };
        let output = OutputSpec {
            name: part.output.clone(),
            encoding: Encoding::Raw,
            reduce: ReduceRule::Sum,
        };
        let ty = part.graph.output_type(&part.output).cloned();
        let ty = ty.ok_or_else(|| ExecutorError::Missing { name: part.output.clone() })?;
        let expected = ExpectedOutput { name: output.name.clone(), encoding: output.encoding, ty };
        let spec = TaskSpec {
            program: Program::Map { graph: part.graph.id(), start: 0, count: 1 },
            seed: task_seed(self.context.plan.seed, round),
            bindings: part.inputs.iter().map(|input| attached(&input.name)).collect(),
            shards: Vec::new(),
            outputs: vec![output],
            numerics: self.context.plan.numerics,
        };
        let expected = Expected { outputs: vec![expected] };
        Ok(Draft { spec, attachments, expected, product })
    }

    /// Part `index` of a pushed stage, counted over all its entries.
    fn part(&self, stage: u32, index: u32) -> Result<&CutPart, ExecutorError> {
        let cut = self.context.cut.as_ref();
        let found = cut.and_then(|cut| match cut.stages.get(stage as usize)? {
            Stage::Pushed(entries) => {
                entries.iter().flat_map(|entry| &entry.parts).nth(index as usize)
            }
            Stage::Local(_) => None,
        });
        found.ok_or_else(|| ExecutorError::Missing {
            name: format!("part {index} of stage {stage}"),
        })
    }

    /// Master placement: begins the round where it is another than the last.
    pub(super) fn begin_round(&mut self, round: u32, state: BlobId) -> Result<(), ExecutorError> {
        if self.round.as_ref().is_some_and(|(current, _)| *current == round) {
            return Ok(());
        }
        let order = self.order(round)?;
        let micro_batches = order.layout().micro_batches(round);
        let rows = (0..micro_batches).flat_map(|index| order.rows(round, index)).collect();
        let state = self.state(state)?;
        let source = self.rows.clone();
        let source = source.ok_or_else(|| ExecutorError::Missing { name: "rows".into() })?;
        let start = Arc::new(RoundStart::new(self.context.clone(), source, state, rows));
        self.round = Some((round, RoundValues { start, defined: Arc::default() }));
        Ok(())
    }

    /// The values of the round that is going on.
    ///
    /// # Errors
    /// [`ExecutorError::Missing`] where none is.
    pub(super) fn round_values(&self) -> Result<RoundValues, ExecutorError> {
        let values = self.round.as_ref().map(|(_, values)| values.clone());
        values.ok_or_else(|| ExecutorError::Missing { name: "round".into() })
    }

    /// Adds what a stage has defined, unless its round is over.
    pub(super) fn define(&mut self, round: u32, defined: Vec<(String, Tensor)>) {
        if let Some((current, values)) = &mut self.round
            && *current == round
        {
            Arc::make_mut(&mut values.defined).extend(defined);
        }
    }

    /// Master placement: the cut graph's outputs, by their names in the graph.
    pub(super) fn cut_outputs(&self) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let RoundValues { start, defined } = self.round_values()?;
        let start = start.gathered();
        let find = |name: &str| defined.get(name).or_else(|| start.as_ref()?.get(name)).cloned();
        let outputs = self.context.cut.iter().flat_map(|cut| &cut.outputs);
        outputs
            .map(|output| {
                let value = find(&output.value);
                let missing = || ExecutorError::Missing { name: output.value.clone() };
                Ok((output.name.clone(), value.ok_or_else(missing)?))
            })
            .collect()
    }

    /// Master placement: the round's values will not be read again.
    pub(super) fn end_round(&mut self) {
        self.round = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Blobs;
    use crate::dataset::{DatasetFacts, Features, Format, Target, X_COLUMN, Y_COLUMN};
    use crate::job::{Lowering, lower_job};
    use crate::runtime::driver::NewJob;
    use crate::runtime::driver::task::TaskBytes;
    use crate::runtime::executor::{RowSource, State, operands};
    use crate::runtime::leases::Held;
    use crate::runtime::metrics::Metrics;
    use crate::runtime::product::look;
    use raven_engine::{Oddness, Work};
    use raven_graph::{DType, TensorType};
    use raven_protocol::{
        Frame, FrameLimits, JobId, KernelId, LeaseId, Seed, ShardRef, TaskId, TensorPart,
    };

    const ROW_COUNT: u32 = 64;

    fn shards(blobs: &Blobs) -> Vec<ShardRef> {
        let x: Vec<u8> = (0..ROW_COUNT * 16).map(|at| at as u8).collect();
        let y: Vec<u8> = (0..ROW_COUNT).flat_map(|row| (row as i32 % 4).to_le_bytes()).collect();
        let ty = |dtype, dims: &[u32]| TensorType::new(dtype, dims);
        let parts = [
            TensorPart { name: X_COLUMN.into(), ty: ty(DType::U8, &[ROW_COUNT, 16]), data: &x },
            TensorPart { name: Y_COLUMN.into(), ty: ty(DType::I32, &[ROW_COUNT]), data: &y },
        ];
        let (blob, bytes) = blobs.put_tensors(&parts).expect("stored");
        vec![ShardRef { blob, first_row: 0, rows: ROW_COUNT, bytes }]
    }

    /// A job in master placement on 64 rows, with a state of zeros.
    fn job(blobs: &Blobs) -> (Job, BlobId) {
        let document = serde_json::json!({
            "name": "t", "dataset": "ds_00000000000003e8", "seed": 7, "placement": "master",
            "model": {"layers": [{"type": "dense", "units": 8, "activation": "relu"},
                                 {"type": "dense", "units": 4}], "loss": "cross_entropy"},
            "optimizer": {"kind": "sgd"},
            "training": {"epochs": 1, "batch": 32, "micro_batch": 16,
                         "schedule": {"kind": "constant", "learning_rate": 0.1}}
        });
        let facts = DatasetFacts {
            name: "t".into(),
            format: Format::Npy,
            train_rows: ROW_COUNT,
            test_rows: ROW_COUNT,
            features: Features { dtype: DType::U8, shape: vec![16] },
            target: Target::Classes { classes: 4 },
            scale: 1.0,
            license: "none".into(),
            source: "made up".into(),
            bytes: 0,
            table: None,
            labels: None,
            expires_at: None,
        };
        let stored = shards(blobs);
        let rows = RowSource::load(blobs, &stored).expect("rows");
        let lowering = Lowering {
            job: JobId(1),
            seed: Seed(7),
            kernel: KernelId([0; 32]),
            dataset: &facts,
            train_shards: stored.clone(),
            test_shards: stored,
        };
        let spec = serde_json::from_value(document).expect("a document");
        let (context, _) = lower_job(&spec, lowering).expect("lowers");
        let specs = context.params.iter().chain(&context.slots);
        let zeros = specs.map(|spec| Tensor::zeros(spec.ty.clone())).collect();
        let state = State::new(&context, zeros).expect("a state");
        let id = state.id();
        let context = Arc::new(context);
        let requester = String::new();
        (Job::new(NewJob { context, requester, state: Some(state), rows: Some(rows) }), id)
    }

    #[test]
    fn what_a_part_attaches_is_copied_when_its_frame_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let (mut job, state) = job(&blobs);
        let stages = &job.context.cut.as_ref().expect("a cut").stages;
        // Stages before the first pushed one define what it reads; here they are made up.
        let (stage, inputs) = stages
            .iter()
            .enumerate()
            .find_map(|(at, stage)| match stage {
                Stage::Pushed(entries) => Some((at as u32, entries[0].parts[0].inputs.clone())),
                Stage::Local(_) => None,
            })
            .expect("a pushed stage");
        let graph_inputs = job.part(stage, 0).expect("part 0").graph.inputs().to_vec();
        job.begin_round(0, state).expect("begins");
        let start = job.round_values().expect("a round").start;
        let known = ["x", "y", "mask"];
        for (input, spec) in inputs.iter().zip(&graph_inputs) {
            let name = &input.value.name;
            let is_start = job.context.params.iter().any(|param| param.name == *name)
                || known.contains(&name.as_str());
            if !is_start {
                assert!(input.value.slice.is_none(), "only weights are cut here: {name}");
                job.define(0, vec![(name.clone(), Tensor::zeros(spec.ty.clone()))]);
            }
        }
        let task = TaskId { job: JobId(1), round: 0, stage, part: 0 };
        let work = Work::Part { state, stage, part: 0 };
        let built = job.task_frame(LeaseId(1), task, 1000, 1, &work).expect("a task");
        let TaskBytes::Deferred { bytes, build } = built.frame else {
            panic!("a part's frame is made on the driver's task");
        };
        assert!(start.gathered().is_none(), "the batch was gathered on the driver's task");
        let frame = build().expect("made");
        assert!(start.gathered().is_some());
        let decoded = Frame::decode(&frame, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
        let attached: usize = decoded.tensors().map(|tensor| tensor.data.len()).sum();
        assert_eq!(attached, bytes, "counted as what it is");
        let values = job.round_values().expect("a round").all().expect("values");
        let expected = operands(&inputs, &values).expect("operands");
        let found = decoded.tensors().map(|tensor| (tensor.name.to_owned(), tensor.data.to_vec()));
        let expected = expected.into_iter().map(|(name, tensor)| (name, tensor.data.to_vec()));
        assert!(found.eq(expected));
    }

    #[test]
    fn the_referee_is_not_given_the_operands_of_another_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let (mut job, state) = job(&blobs);
        let stages = &job.context.cut.as_ref().expect("a cut").stages;
        let stage = stages.iter().position(|stage| matches!(stage, Stage::Pushed(_)));
        let stage = stage.expect("a pushed stage") as u32;
        job.begin_round(1, state).expect("begins");
        let work = Work::Part { state, stage, part: 0 };
        let mut judged = |round| {
            let task = TaskId { job: JobId(1), round, stage, part: 0 };
            job.judged_frame(LeaseId(1), task, &work).is_ok()
        };
        assert!(!judged(0), "its values are gone");
        assert!(judged(1), "and those of the one that is going on are not");
    }

    #[test]
    fn a_part_that_is_a_product_is_probed_with_the_operands_of_its_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let (mut job, state) = job(&blobs);
        let stages = job.context.cut.as_ref().expect("a cut").stages.clone();
        let pushed = stages.iter().enumerate().find_map(|(at, stage)| match stage {
            Stage::Pushed(entries) => Some((at as u32, entries[0].parts[0].clone())),
            Stage::Local(_) => None,
        });
        let (stage, part) = pushed.expect("a pushed stage");
        job.begin_round(0, state).expect("begins");
        // The samples as f32, which a local stage defines; the weights are zeros.
        let value = |i: u32| (i % 7) as f32 - 3.0;
        let (lhs, rhs) = (&part.inputs[0].value.name, &part.inputs[1].value.name);
        for (name, dims) in [(lhs, [32, 16]), (rhs, [16, 8])] {
            let data: Vec<u8> =
                (0..dims[0] * dims[1]).flat_map(|i| value(i).to_le_bytes()).collect();
            let tensor = Tensor { ty: TensorType::new(DType::F32, dims), data: data.into() };
            job.define(0, vec![(name.clone(), tensor)]);
        }
        let task = TaskId { job: JobId(1), round: 0, stage, part: 0 };
        let work = Work::Part { state, stage, part: 0 };
        let built = job.task_frame(LeaseId(1), task, 1000, 1, &work).expect("a task");
        assert!(built.product.is_some(), "a dense layer is a product");
        let held = Held { task, expected: built.expected, product: built.product };
        let values = job.round_values().expect("a round").all().expect("values");
        let operands = operands(&part.inputs, &values).expect("operands");
        let [a, b] = [0, 1].map(|at: usize| operands[at].1.as_f32s().expect("f32"));
        let (a, b): (Vec<f32>, Vec<f32>) = (a.collect(), b.collect());
        let columns = b.len() / 16;
        let product = |at: usize| -> f32 {
            (0..16).map(|k| a[at / columns * 16 + k] * b[k * columns + at % columns]).sum()
        };
        let metrics = Metrics::default();
        let look = |change: &dyn Fn(usize, f32) -> f32| {
            let data = (0..32 * columns).flat_map(|at| change(at, product(at)).to_le_bytes());
            let ty = TensorType::new(DType::F32, [32, columns as u32]);
            let result = Tensor { ty, data: data.collect::<Vec<u8>>().into() };
            look(&held, &HashMap::from([("part".to_owned(), result)]), &metrics)
        };
        assert_eq!(look(&|_, x| x), Oddness::Probed);
        assert_eq!(look(&|at, x| if at == 5 { x + 0.5 } else { x }), Oddness::Faulty);
        assert_eq!(look(&|_, x| -x), Oddness::Faulty);
        assert_eq!(look(&|at, x| if at == 9 { f32::NAN } else { x }), Oddness::NotFinite);
        assert_eq!((metrics.product_checks.get(), metrics.product_faults.get()), (3, 2));
    }
}
