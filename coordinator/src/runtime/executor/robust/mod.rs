//! Gradients of groups become one by a rule that bounds what a few of them can do.
//!
//! What goes over whole gradients runs on the kernel, see [`graphs`]; what is
//! decided by a number for each group (who is left out, by how much is clipped)
//! is counted here, in f64, with additions, products, quotients and roots alone
//! and in the groups' order: IEEE 754 leaves nothing open in that. So the same
//! parts come to the same bits on any machine, however they were cut and in
//! whatever order they came.
//!
//! Nothing that a group says of its own size is believed: rows are counted by the
//! order of the epoch.

mod graphs;

pub use graphs::GroupGraph;

use super::ExecutorError;
use super::operations::{Part, Purpose, Worker, metrics_of, output_types, scalar, summed};
use super::tensor::Tensor;
use crate::job::{Combine, JobContext};
use axum::body::Bytes;
use graphs::{CENTER, CHUNK, DIVISOR, SQUARES, VECTOR, factor, vector};
use raven_engine::{EpochOrder, Metrics, groups, tree};
use raven_graph::{DType, TensorType};
use raven_protocol::Seed;
use std::collections::HashMap;

/// A group of a round's micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// First micro-batch.
    pub start: u32,
    /// Number of micro-batches.
    pub count: u32,
    /// Rows that they read.
    pub rows: u32,
}

impl Group {
    /// Those of `round`; none where the job's gradients are only added.
    ///
    /// # Panics
    /// Where the order is of another epoch.
    pub fn of_round(context: &JobContext, order: &EpochOrder, round: u32) -> Vec<Group> {
        if context.combine.is_mean() {
            return Vec::new();
        }
        let read = |micro_batch| order.rows(round, micro_batch).iter().filter(|r| **r >= 0).count();
        let total = order.layout().micro_batches(round);
        let groups = groups::runs(total, context.combine.groups()).map(|(start, count)| {
            let rows: usize = (start..start + count).map(read).sum();
            Group { start, count, rows: rows as u32 }
        });
        groups.collect()
    }
}

/// What a round's groups come to.
#[derive(Debug)]
pub enum Combined {
    /// One part in place of all; `metrics` are sums over the groups that remain.
    Part { part: Part, metrics: Metrics },
    /// Too few groups are fit to be combined.
    Outnumbered { kept: u32, groups: u32 },
}

/// A group's contribution.
struct Voice {
    rows: u32,
    /// Its gradients joined: their sum, or their mean, as the rule reads them.
    gradient: Bytes,
    /// Norm of the mean gradient.
    norm: f64,
    metrics: Metrics,
}

/// Operands of runs over flat vectors.
#[derive(Default)]
struct Operands<'a> {
    vectors: Vec<(String, &'a Bytes)>,
    numbers: Vec<(String, Tensor)>,
}

impl Worker {
    /// Combines a round's parts, none of which crosses a group, by the job's rule.
    /// What is returned stands for the sum over the batch: the optimizer's step
    /// divides it by its own count.
    ///
    /// # Errors
    /// [`ExecutorError::TreeShape`] where the parts are not those of the groups,
    /// and what the kernel refuses.
    pub fn combine_groups(
        &mut self,
        context: &JobContext,
        parts: Vec<Part>,
        groups: &[Group],
    ) -> Result<Combined, ExecutorError> {
        let mut voices = Vec::with_capacity(groups.len());
        let mut parts = parts.into_iter().peekable();
        for group in groups {
            let end = group.start + group.count;
            let own: Vec<Part> =
                std::iter::from_fn(|| parts.next_if(|part| part.start < end)).collect();
            voices.push(self.voice(context, own, group)?);
        }
        if parts.next().is_some() {
            return Err(ExecutorError::TreeShape);
        }
        let kept = fit(voices, context.combine.guard());
        if 2 * kept.len() < groups.len() {
            let (kept, groups) = (kept.len() as u32, groups.len() as u32);
            return Ok(Combined::Outnumbered { kept, groups });
        }
        let (gradient, divisor) = self.by_rule(&context.combine, &kept)?;
        let metrics = total(&kept)?;
        let part = part(context, &gradient, divisor, metrics)?;
        Ok(Combined::Part { part, metrics })
    }

    /// Sums a group's parts and measures the mean.
    fn voice(
        &mut self,
        context: &JobContext,
        parts: Vec<Part>,
        group: &Group,
    ) -> Result<Voice, ExecutorError> {
        let train = &context.train;
        let covered = parts.first().zip(parts.last());
        let covered = covered.map(|(first, last)| (first.start, last.start + last.count));
        if covered != Some((group.start, group.start + group.count)) {
            return Err(ExecutorError::TreeShape);
        }
        let outputs = output_types(train)?;
        let values = self.sum(context.job(), Purpose::SumTrain, parts, &outputs)?;
        let mut sum = Vec::new();
        for name in &train.gradients {
            let value = values.get(name);
            let value = value.ok_or_else(|| ExecutorError::Missing { name: name.clone() })?;
            sum.extend_from_slice(&value.data);
        }
        let sum = Bytes::from(sum);
        let (mean, norm) = self.mean(&sum, group.rows)?;
        // A clipped mean scales sums, so that unclipped ones add up to the plain mean's bits.
        let is_of_sums = matches!(context.combine, Combine::ClippedMean { .. });
        let metrics = metrics_of(train, |name| scalar(&values, name))?;
        let metrics = Metrics { count: group.rows as f32, ..metrics };
        let gradient = if is_of_sums { sum } else { mean };
        Ok(Voice { rows: group.rows, gradient, norm, metrics })
    }

    /// A sum divided by its rows, and the norm of that.
    fn mean(&mut self, sum: &Bytes, rows: u32) -> Result<(Bytes, f64), ExecutorError> {
        let operands = Operands {
            vectors: vec![(vector(0), sum)],
            numbers: vec![(DIVISOR.to_owned(), Tensor::scalar(rows as f32))],
        };
        let (mut mean, mut squares) = (Vec::with_capacity(sum.len()), 0.0);
        self.run_chunks(
            &operands,
            |len| GroupGraph::Mean { len },
            &[VECTOR, SQUARES],
            |values| {
                mean.extend_from_slice(&named(values, VECTOR)?.data);
                squares += f64::from(scalar(values, SQUARES)?);
                Ok(())
            },
        )?;
        Ok((mean.into(), squares.sqrt()))
    }

    /// The combined gradient, and what it is to be divided by.
    fn by_rule(&mut self, rule: &Combine, voices: &[Voice]) -> Result<(Bytes, f32), ExecutorError> {
        let rows: u64 = voices.iter().map(|voice| u64::from(voice.rows)).sum();
        match *rule {
            Combine::Mean {} => Err(ExecutorError::TreeShape),
            Combine::ClippedMean { norm, .. } => {
                let factors = voices.iter().map(|voice| clip(norm, voice.norm) as f32).collect();
                let groups = voices.len() as u32;
                let graph = |len| GroupGraph::Weighted { groups, len };
                let sum = self.weighted(voices, factors, None, graph)?;
                Ok((sum, rows as f32))
            }
            Combine::CenteredClipping { radius, iterations, .. } => {
                let mut center = self.trimmed(voices, u32::MAX)?;
                for _ in 0..iterations {
                    center = self.closer(voices, &center, radius, rows)?;
                }
                Ok((center, 1.0))
            }
            Combine::TrimmedMean { trim, .. } => Ok((self.trimmed(voices, trim)?, 1.0)),
        }
    }

    /// Coordinate by coordinate the mean without the `trim` outermost values at
    /// each end; the median where no more than that are left.
    fn trimmed(&mut self, voices: &[Voice], trim: u32) -> Result<Bytes, ExecutorError> {
        let groups = voices.len() as u32;
        let trim = trim.min(groups.saturating_sub(1) / 2);
        let graph = |len| GroupGraph::Trimmed { groups, trim, len };
        self.weighted(voices, Vec::new(), None, graph)
    }

    /// One iteration of centred clipping.
    fn closer(
        &mut self,
        voices: &[Voice],
        center: &Bytes,
        radius: f32,
        rows: u64,
    ) -> Result<Bytes, ExecutorError> {
        let mut factors = Vec::with_capacity(voices.len());
        for voice in voices {
            let operands = Operands {
                vectors: vec![(vector(0), &voice.gradient), (CENTER.to_owned(), center)],
                numbers: Vec::new(),
            };
            let mut squares = 0.0;
            self.run_chunks(
                &operands,
                |len| GroupGraph::Distance { len },
                &[SQUARES],
                |values| {
                    squares += f64::from(scalar(values, SQUARES)?);
                    Ok(())
                },
            )?;
            let part = f64::from(voice.rows) / rows as f64;
            factors.push((part * clip(radius, squares.sqrt())) as f32);
        }
        let groups = voices.len() as u32;
        let graph = |len| GroupGraph::Shifted { groups, len };
        self.weighted(voices, factors, Some(center), graph)
    }

    /// Runs a graph over all groups' gradients; answers its vector.
    fn weighted(
        &mut self,
        voices: &[Voice],
        factors: Vec<f32>,
        center: Option<&Bytes>,
        graph: impl Fn(u32) -> GroupGraph,
    ) -> Result<Bytes, ExecutorError> {
        let voices = voices.iter().enumerate();
        let mut vectors: Vec<(String, &Bytes)> =
            voices.map(|(at, voice)| (vector(at), &voice.gradient)).collect();
        vectors.extend(center.map(|center| (CENTER.to_owned(), center)));
        let numbers = factors.into_iter().enumerate();
        let numbers = numbers.map(|(at, by)| (factor(at), Tensor::scalar(by))).collect();
        let mut found = Vec::new();
        self.run_chunks(&Operands { vectors, numbers }, graph, &[VECTOR], |values| {
            found.extend_from_slice(&named(values, VECTOR)?.data);
            Ok(())
        })?;
        Ok(found.into())
    }

    /// Runs a graph over one stretch of the vectors after another, so that no run
    /// attaches more than a frame may hold, however large the model is.
    fn run_chunks(
        &mut self,
        operands: &Operands<'_>,
        graph: impl Fn(u32) -> GroupGraph,
        outputs: &[&str],
        mut take: impl FnMut(&HashMap<String, Tensor>) -> Result<(), ExecutorError>,
    ) -> Result<(), ExecutorError> {
        let bytes = operands.vectors.first().map_or(0, |(_, vector)| vector.len());
        for from in (0..bytes).step_by(4 * CHUNK) {
            let to = (from + 4 * CHUNK).min(bytes);
            let len = ((to - from) / 4) as u32;
            let ty = TensorType::new(DType::F32, [len]);
            let stretches: Vec<(&String, Tensor)> = operands
                .vectors
                .iter()
                .map(|(name, data)| (name, Tensor { ty: ty.clone(), data: data.slice(from..to) }))
                .collect();
            let numbers = operands.numbers.iter().map(|(name, number)| (name.clone(), number));
            let stretches = stretches.iter().map(|(name, data)| ((*name).clone(), data));
            let sources = stretches.chain(numbers).collect();
            let graph = self.group_graph(graph(len))?;
            let wanted = outputs.iter().map(|name| summed(name)).collect();
            take(&self.run_attached(&graph, Seed(0), &sources, wanted)?)?;
        }
        Ok(())
    }
}

fn named<'a>(values: &'a HashMap<String, Tensor>, name: &str) -> Result<&'a Tensor, ExecutorError> {
    values.get(name).ok_or_else(|| ExecutorError::Missing { name: name.to_owned() })
}

/// What scales something of norm `found` down to `limit`; exactly 1 within it.
fn clip(limit: f32, found: f64) -> f64 {
    let limit = f64::from(limit);
    if found <= limit { 1.0 } else { limit / found }
}

/// Leaves out groups with anything that is not finite, and those whose norm is
/// beyond `guard` times the median norm of the others.
fn fit(voices: Vec<Voice>, guard: Option<f32>) -> Vec<Voice> {
    let is_finite = |voice: &Voice| {
        let Metrics { loss_sum, correct, .. } = voice.metrics;
        voice.norm.is_finite() && loss_sum.is_finite() && correct.is_finite()
    };
    let mut kept: Vec<Voice> = voices.into_iter().filter(is_finite).collect();
    let mut norms: Vec<f64> = kept.iter().map(|voice| voice.norm).collect();
    norms.sort_unstable_by(f64::total_cmp);
    // The lower one of two: at least half of the groups are within it.
    let median = norms.get(norms.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    if let Some(guard) = guard.filter(|_| median > 0.0) {
        kept.retain(|voice| voice.norm <= f64::from(guard) * median);
    }
    kept
}

/// Sums over the groups, along the tree as their parts are.
fn total(voices: &[Voice]) -> Result<Metrics, ExecutorError> {
    let leaves = voices.iter().enumerate().map(|(at, voice)| (at as u32, 1, voice.metrics));
    let sum = tree::combine(voices.len() as u32, leaves, |a, b| Metrics {
        loss_sum: a.loss_sum + b.loss_sum,
        correct: a.correct + b.correct,
        count: a.count + b.count,
    });
    sum.ok_or(ExecutorError::TreeShape)
}

/// A part with the combined gradient in place of the sums, and its divisor in
/// place of the count.
fn part(
    context: &JobContext,
    gradient: &Bytes,
    divisor: f32,
    metrics: Metrics,
) -> Result<Part, ExecutorError> {
    let train = &context.train;
    let mut values: HashMap<String, Tensor> = HashMap::from([
        (train.loss_sum.clone(), Tensor::scalar(metrics.loss_sum)),
        (train.correct.clone(), Tensor::scalar(metrics.correct)),
        (train.count.clone(), Tensor::scalar(divisor)),
    ]);
    let mut from = 0;
    for name in &train.gradients {
        let ty = train.graph.output_type(name).cloned();
        let ty = ty.ok_or_else(|| ExecutorError::Missing { name: name.clone() })?;
        let to = from + ty.bytes().unwrap_or(0) as usize;
        let data = gradient.slice(from..to);
        values.insert(name.clone(), Tensor { ty, data });
        from = to;
    }
    Ok(Part { start: 0, count: 1, values })
}
