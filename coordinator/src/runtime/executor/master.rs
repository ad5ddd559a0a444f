//! Master placement: the round's environment of named values, and what is cut
//! from it for contributors.
//!
//! Cutting and gathering copy bytes and compute nothing, so they are done here;
//! every sum and product is a graph on the kernel.

use super::ExecutorError;
use super::kernel::read_frame;
use super::operations::{Done, Worker, summed};
use super::state::State;
use super::tensor::Tensor;
use crate::blobs::Blobs;
use crate::job::JobContext;
use axum::body::Bytes;
use raven_graph::cut::{AxisSlice, PartInput, Stage};
use raven_graph::{DType, Shape, TensorType, ValidGraph};
use raven_protocol::{OutputSpec, ReduceRule, Seed, ShardRef};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A round's values by name. Cloning copies names, not tensors.
pub type Values = HashMap<String, Tensor>;

/// A data set's rows, held in memory: in master placement the coordinator
/// itself reads the batches.
#[derive(Debug)]
pub struct RowSource {
    shards: Vec<(ShardRef, Bytes)>,
}

impl RowSource {
    /// Reads the shards. Blocks.
    ///
    /// # Errors
    /// [`ExecutorError::Blob`].
    pub fn load(blobs: &Blobs, shards: &[ShardRef]) -> Result<Self, ExecutorError> {
        let shards = shards
            .iter()
            .map(|shard| Ok((*shard, blobs.get(shard.blob)?)))
            .collect::<Result<Vec<_>, ExecutorError>>()?;
        Ok(RowSource { shards })
    }

    /// The values of `column` in the rows with these numbers, as a tensor of
    /// type `ty`, whose first extent is the number of rows; -1 yields zeros.
    ///
    /// # Errors
    /// [`ExecutorError::Column`] where the stored column does not fit `ty` or lacks a row.
    pub fn gather(
        &self,
        column: &str,
        rows: &[i32],
        ty: &TensorType,
    ) -> Result<Tensor, ExecutorError> {
        let refuse = |reason: String| ExecutorError::Column { column: column.to_owned(), reason };
        let sample = ty.shape.dims().get(1..).unwrap_or_default();
        let row_bytes = Shape::from(sample).bytes(ty.dtype).unwrap_or(u64::MAX) as usize;
        if ty.shape.dims().first() != Some(&(rows.len() as u32)) {
            return Err(refuse(format!("{} rows do not make a {ty}", rows.len())));
        }
        let mut columns = Vec::with_capacity(self.shards.len());
        for (shard, bytes) in &self.shards {
            let frame = read_frame(bytes)?;
            let view = frame.tensor(column).ok_or_else(|| refuse("not in the shard".into()))?;
            let dims = view.shape.dims();
            let fits = view.dtype == ty.dtype
                && dims.first() == Some(&shard.rows)
                && dims.get(1..) == Some(sample);
            if !fits {
                return Err(refuse(format!("{} does not yield {ty}", view.ty())));
            }
            columns.push((shard.first_row, shard.rows, bytes.slice_ref(view.data)));
        }
        let mut data = Vec::with_capacity(row_bytes.saturating_mul(rows.len()));
        for &row in rows {
            let Ok(row) = u32::try_from(row) else {
                data.resize(data.len() + row_bytes, 0);
                continue;
            };
            let at = columns.partition_point(|&(first, _, _)| first <= row);
            let found = at.checked_sub(1).and_then(|at| columns.get(at));
            let (first, _, bytes) = found
                .filter(|&&(first, count, _)| row - first < count)
                .ok_or_else(|| refuse(format!("no row {row}")))?;
            let start = (row - first) as usize * row_bytes;
            data.extend_from_slice(&bytes[start..start + row_bytes]);
        }
        Ok(Tensor { ty: ty.clone(), data: data.into() })
    }

    /// The environment that a round starts from: parameters under their own
    /// names, the batch's rows and their mask.
    ///
    /// # Errors
    /// As [`RowSource::gather`].
    pub fn begin(
        &self,
        context: &JobContext,
        params: &[(String, Tensor)],
        mut rows: Vec<i32>,
    ) -> Result<Values, ExecutorError> {
        let train = &context.train;
        if rows.len() > train.rows as usize {
            let reason = format!("{} rows exceed the graph's {}", rows.len(), train.rows);
            return Err(ExecutorError::Column { column: context.data.x_column.clone(), reason });
        }
        rows.resize(train.rows as usize, -1);
        let mut values: Values = params.iter().cloned().collect();
        for (input, column) in
            [(&train.x, &context.data.x_column), (&train.y, &context.data.y_column)]
        {
            if let Some(spec) = train.graph.input(input) {
                values.insert(input.clone(), self.gather(column, &rows, &spec.ty)?);
            }
        }
        let mask: Vec<u8> =
            rows.iter().flat_map(|&row| if row < 0 { 0f32 } else { 1f32 }.to_le_bytes()).collect();
        let ty = TensorType::new(DType::F32, [rows.len() as u32]);
        values.insert(train.mask.clone(), Tensor { ty, data: mask.into() });
        Ok(values)
    }
}

/// What a round starts from: parameters, rows and mask. Gathering the rows
/// copies a batch, so whoever needs them first does it, and the task that owns
/// the engine never does.
#[derive(Debug)]
pub struct RoundStart {
    context: Arc<JobContext>,
    source: Arc<RowSource>,
    state: Arc<State>,
    /// Numbers of the batch's rows, in order.
    rows: Vec<i32>,
    gathered: Mutex<Option<Arc<Values>>>,
}

impl RoundStart {
    /// A start of which nothing is gathered yet.
    pub fn new(
        context: Arc<JobContext>,
        source: Arc<RowSource>,
        state: Arc<State>,
        rows: Vec<i32>,
    ) -> Self {
        RoundStart { context, source, state, rows, gathered: Mutex::default() }
    }

    /// The values, gathered once. Blocks.
    ///
    /// # Errors
    /// As [`RowSource::gather`].
    pub fn values(&self) -> Result<Arc<Values>, ExecutorError> {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(values) = &*gathered {
            return Ok(values.clone());
        }
        let rows = self.rows.clone();
        let values = Arc::new(self.source.begin(&self.context, self.state.params(), rows)?);
        *gathered = Some(values.clone());
        Ok(values)
    }

    /// The values, where someone has gathered them.
    pub fn gathered(&self) -> Option<Arc<Values>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The values of a round at one moment: its start, and what its stages have
/// defined since. Cloning copies nothing.
#[derive(Clone, Debug)]
pub struct RoundValues {
    pub start: Arc<RoundStart>,
    pub defined: Arc<Values>,
}

impl RoundValues {
    /// All values by name. Blocks where the rows are not gathered yet.
    ///
    /// # Errors
    /// As [`RowSource::gather`].
    pub fn all(&self) -> Result<Values, ExecutorError> {
        let mut all = Values::clone(&*self.start.values()?);
        all.extend(self.defined.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
        Ok(all)
    }
}

/// The tensors that a piece binds, by the piece's input names.
///
/// # Errors
/// [`ExecutorError::Missing`] where an earlier stage has not run.
pub fn operands(
    inputs: &[PartInput],
    values: &Values,
) -> Result<Vec<(String, Tensor)>, ExecutorError> {
    inputs
        .iter()
        .map(|input| {
            let value = values.get(&input.value.name);
            let value =
                value.ok_or_else(|| ExecutorError::Missing { name: input.value.name.clone() })?;
            let tensor = match &input.value.slice {
                Some(slice) => cut_axis(value, *slice).ok_or_else(|| ExecutorError::Column {
                    column: input.value.name.clone(),
                    reason: format!("{slice:?} lies outside of {}", value.ty),
                })?,
                None => value.clone(),
            };
            Ok((input.name.clone(), tensor))
        })
        .collect()
}

/// The range of one axis, copied out; `None` where it lies outside.
fn cut_axis(tensor: &Tensor, slice: AxisSlice) -> Option<Tensor> {
    let AxisSlice { axis, start, end } = slice;
    let mut dims = tensor.ty.shape.dims().to_vec();
    let extent = *dims.get(axis as usize)?;
    if start >= end || end > extent {
        return None;
    }
    let inner: usize = dims[axis as usize + 1..].iter().map(|&d| d as usize).product();
    let inner = inner * tensor.ty.dtype.bytes() as usize;
    let stride = extent as usize * inner;
    dims[axis as usize] = end - start;
    let ty = TensorType::new(tensor.ty.dtype, dims.as_slice());
    if stride == 0 {
        return Some(Tensor::zeros(ty));
    }
    let (from, to) = (start as usize * inner, end as usize * inner);
    let outer = tensor.data.len() / stride;
    let data = if outer == 1 {
        tensor.data.slice(from..to)
    } else {
        let mut data = Vec::with_capacity(outer * (to - from));
        tensor.data.chunks_exact(stride).for_each(|row| data.extend_from_slice(&row[from..to]));
        data.into()
    };
    Some(Tensor { ty, data })
}

fn stage_of(context: &JobContext, stage: u32) -> Result<&Stage, ExecutorError> {
    let cut = context.cut.as_ref();
    cut.and_then(|cut| cut.stages.get(stage as usize))
        .ok_or_else(|| ExecutorError::Missing { name: format!("stage {stage}") })
}

impl Worker {
    /// Runs a local stage over the round's values; answers the values that it defines.
    pub(super) fn local(
        &mut self,
        context: &JobContext,
        stage: u32,
        seed: Seed,
        values: &RoundValues,
    ) -> Result<Done, ExecutorError> {
        let Stage::Local(piece) = stage_of(context, stage)? else {
            return Err(ExecutorError::Missing { name: format!("local stage {stage}") });
        };
        let bound = operands(&piece.inputs, &values.all()?)?;
        let sources = bound.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
        let names = piece.graph.outputs().iter().map(|output| output.name.as_str());
        let outputs = names.clone().map(|name| whole(&piece.graph, name)).collect();
        let mut found = self.run_attached(&piece.graph, seed, &sources, outputs)?;
        let defined = names.filter_map(|name| Some((name.to_owned(), found.remove(name)?)));
        Ok(Done::Values(defined.collect()))
    }

    /// Joins or sums the parts of a pushed stage, one value after another.
    pub(super) fn combine(
        &mut self,
        context: &JobContext,
        stage: u32,
        parts: &[Tensor],
    ) -> Result<Done, ExecutorError> {
        let Stage::Pushed(entries) = stage_of(context, stage)? else {
            return Err(ExecutorError::Missing { name: format!("pushed stage {stage}") });
        };
        let mut rest = parts;
        let mut defined = Vec::with_capacity(entries.len());
        for entry in entries {
            if rest.len() < entry.parts.len() {
                return Err(ExecutorError::TreeShape);
            }
            let (own, others) = rest.split_at(entry.parts.len());
            rest = others;
            let graph = entry.combine_graph()?;
            let sources =
                own.iter().enumerate().map(|(i, tensor)| (format!("part.{i}"), tensor)).collect();
            let outputs = vec![summed(&entry.value)];
            let mut found = self.run_attached(&graph, Seed(0), &sources, outputs)?;
            defined.push((entry.value.clone(), super::operations::take(&mut found, &entry.value)?));
        }
        Ok(Done::Values(defined))
    }
}

/// An output of a graph that runs once. Of one run a sum and a join are the
/// run's own value; sums are of f32 alone, joins need an axis.
fn whole(graph: &ValidGraph, name: &str) -> OutputSpec {
    let is_f32 = graph.output_type(name).is_none_or(|ty| ty.dtype == DType::F32);
    let reduce = if is_f32 { ReduceRule::Sum } else { ReduceRule::Concat };
    OutputSpec { reduce, ..summed(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_any_axis_is_copied_out() {
        let ty = TensorType::new(DType::U8, [2, 3, 2]);
        let tensor = Tensor { ty, data: (0..12).collect::<Vec<u8>>().into() };
        let cut = |axis, start, end| cut_axis(&tensor, AxisSlice { axis, start, end });
        assert_eq!(cut(0, 1, 2).expect("inside").data.as_ref(), [6, 7, 8, 9, 10, 11]);
        let middle = cut(1, 1, 3).expect("inside");
        assert_eq!(middle.ty.shape.dims(), [2, 2, 2]);
        assert_eq!(middle.data.as_ref(), [2, 3, 4, 5, 8, 9, 10, 11]);
        assert_eq!(cut(2, 0, 1).expect("inside").data.as_ref(), [0, 2, 4, 6, 8, 10]);
        assert_eq!(cut(1, 2, 4), None);
        assert_eq!(cut(3, 0, 1), None);
        assert_eq!(cut(0, 1, 1), None);
    }
}
