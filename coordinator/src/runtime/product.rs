//! Results that are one matrix product, checked as they come by Freivalds' method.
//!
//! Placement `master` pushes out matrix products and convolutions, and the operands
//! of a product are here while its round goes on. Six probes, drawn after the
//! commitment, cost as much as reading operands and result three times, and miss an
//! element that is off by 16 bounds on round-off with probability 1.6e-8
//! ([`raven_proof::freivalds`]). What they find is put to the referee: no result is
//! refused by this alone.
//!
//! Convolutions are not checked: unrolled to products they have as many columns as
//! the part has filters, a few, so that the check would cost as much as they do.

use super::executor::{ExecutorError, RoundValues, Tensor, operands};
use super::leases::Held;
use super::metrics::Metrics;
use super::ws::is_odd;
use crate::random;
use raven_engine::Oddness;
use raven_graph::Op;
use raven_graph::cut::{Part, PartInput};
use raven_proof::freivalds::PROBES_THOROUGH;
use raven_proof::{Operand, Verdict, check_product};
use std::collections::HashMap;
use std::fmt;

/// A leased product, and what its operands are cut from.
pub struct Product {
    transposed: [bool; 2],
    inputs: Vec<PartInput>,
    values: RoundValues,
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

/// The elements and the extents of a matrix.
fn matrix(tensor: &Tensor) -> Option<(Vec<f32>, [usize; 2])> {
    let &[rows, columns] = tensor.ty.shape.dims() else { return None };
    Some((tensor.as_f32s()?.collect(), [rows as usize, columns as usize]))
}

impl Product {
    /// The product that a part is, if it is one.
    pub fn of(part: &Part, values: &RoundValues) -> Option<Self> {
        let graph = &part.graph;
        let output = graph.outputs().iter().find(|output| output.name == part.output)?;
        let node = &graph.graph().nodes[output.node.index()];
        let Op::MatMul { transpose_lhs, transpose_rhs } = node.op else { return None };
        let named = |operand: &raven_graph::NodeId| {
            let node = &graph.graph().nodes[operand.index()];
            let Op::Input { name, .. } = &node.op else { return None };
            part.inputs.iter().find(|input| input.name == *name).cloned()
        };
        let inputs: Vec<PartInput> = node.inputs.iter().map(named).collect::<Option<_>>()?;
        let is_matrix = |operand: &raven_graph::NodeId| graph.ty(*operand).shape.rank() == 2;
        let transposed = [transpose_lhs, transpose_rhs];
        node.inputs.iter().all(is_matrix).then(|| Product {
            transposed,
            inputs,
            values: values.clone(),
        })
    }

    /// What six probes under `seed` find of a claimed result; `None` where it cannot be
    /// checked. Blocks.
    ///
    /// # Errors
    /// [`ExecutorError`] where the operands are not there: a fault of this process.
    fn check(&self, result: &Tensor, seed: u64) -> Result<Option<Verdict>, ExecutorError> {
        let operands = operands(&self.inputs, &self.values.all()?)?;
        let [(_, lhs), (_, rhs)] = operands.as_slice() else { return Ok(None) };
        let (Some((a, [m, k])), Some((b, [_, n])), Some((c, _))) =
            (self.turned(0, lhs), self.turned(1, rhs), matrix(result))
        else {
            return Ok(None);
        };
        let [left, right] = self.transposed;
        let a = Operand { elements: &a, transposed: left };
        let b = Operand { elements: &b, transposed: right };
        let product = raven_proof::Product { m, k, n, a, b, c: &c };
        // Too deep a sum for a bound is no fault.
        Ok(check_product(&product, PROBES_THOROUGH, seed).ok())
    }

    /// The elements of an operand as they lie, and its extents as it is meant.
    fn turned(&self, at: usize, operand: &Tensor) -> Option<(Vec<f32>, [usize; 2])> {
        let (elements, [rows, columns]) = matrix(operand)?;
        let extents = if self.transposed[at] { [columns, rows] } else { [rows, columns] };
        Some((elements, extents))
    }
}

/// How a result looks that was just revealed. Where it is a product this blocks.
pub fn look(held: &Held, values: &HashMap<String, Tensor>, metrics: &Metrics) -> Oddness {
    if is_odd(values) {
        return Oddness::NotFinite;
    }
    // The task has one output, whose type was checked.
    let (Some(product), Some(result)) = (&held.product, values.values().next()) else {
        return Oddness::Plain;
    };
    // The commitment is made: nobody can have known these probes.
    match product.check(result, u64::from_le_bytes(random::bytes())) {
        Ok(Some(verdict)) => {
            metrics.product_checks.add(1);
            match verdict {
                Verdict::Consistent => Oddness::Probed,
                Verdict::Undecided { .. } => Oddness::Plain,
                Verdict::Faulty { row, residual, bound } => {
                    metrics.product_faults.add(1);
                    let task = held.task;
                    tracing::warn!(%task, row, residual, bound, "a product is not what it should be");
                    Oddness::Faulty
                }
            }
        }
        Ok(None) => Oddness::Plain,
        Err(error) => {
            tracing::error!(task = %held.task, %error, "a product was not checked");
            Oddness::Plain
        }
    }
}
