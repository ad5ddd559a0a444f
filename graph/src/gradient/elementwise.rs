//! Derivatives of element-wise ops.

use super::{Contributions, Step, when};
use crate::builder::GraphBuilder;
use crate::error::GraphError;
use crate::op::{BinaryFn, CompareFn, UnaryFn};
use crate::program::NodeId;

pub(super) fn unary(
    b: &mut GraphBuilder,
    step: &Step,
    function: UnaryFn,
) -> Result<Contributions, GraphError> {
    if !step.needs[0] {
        return Ok(vec![None]);
    }
    let (x, y, dy) = (step.operands[0], step.y, step.dy);
    let dx = match function {
        UnaryFn::Neg => b.unary(UnaryFn::Neg, dy)?,
        UnaryFn::Abs => {
            let sign = b.unary(UnaryFn::Sign, x)?;
            b.mul(dy, sign)?
        }
        UnaryFn::Sign | UnaryFn::Floor => return Ok(vec![None]),
        UnaryFn::Exp => b.mul(dy, y)?,
        UnaryFn::Log => b.div(dy, x)?,
        UnaryFn::Sqrt => {
            let half = b.scale(dy, 0.5)?;
            b.div(half, y)?
        }
        UnaryFn::Recip => {
            let square = b.mul(y, y)?;
            let slope = b.unary(UnaryFn::Neg, square)?;
            b.mul(dy, slope)?
        }
        UnaryFn::Tanh => {
            let (one, square) = (b.scalar(1.0)?, b.mul(y, y)?);
            let slope = b.sub(one, square)?;
            b.mul(dy, slope)?
        }
        UnaryFn::Sigmoid => {
            let one = b.scalar(1.0)?;
            let rest = b.sub(one, y)?;
            let slope = b.mul(y, rest)?;
            b.mul(dy, slope)?
        }
        // The result is positive exactly where the operand is, and reading
        // it lets the operand's memory go early.
        UnaryFn::Relu => {
            let zero = b.scalar(0.0)?;
            let positive = b.compare(CompareFn::Gt, y, zero)?;
            b.select(positive, dy, zero)?
        }
    };
    Ok(vec![Some(dx)])
}

pub(super) fn binary(
    b: &mut GraphBuilder,
    step: &Step,
    function: BinaryFn,
) -> Result<Contributions, GraphError> {
    let full = match function {
        BinaryFn::Add => vec![Some(step.dy), Some(step.dy)],
        BinaryFn::Sub => {
            vec![Some(step.dy), when(step.needs[1], || b.unary(UnaryFn::Neg, step.dy))?]
        }
        BinaryFn::Mul => {
            let (lhs, rhs) = (step.operands[0], step.operands[1]);
            let d_lhs = when(step.needs[0], || b.mul(step.dy, rhs))?;
            vec![d_lhs, when(step.needs[1], || b.mul(step.dy, lhs))?]
        }
        BinaryFn::Div => div(b, step)?,
        BinaryFn::Max => extreme(b, step, CompareFn::Ge)?,
        BinaryFn::Min => extreme(b, step, CompareFn::Le)?,
        BinaryFn::Pow => pow(b, step)?,
    };
    sum_to_operands(b, step, full)
}

/// `d(l / r) = dy / r`, `-(dy / r) * y`.
fn div(b: &mut GraphBuilder, step: &Step) -> Result<Contributions, GraphError> {
    let d_lhs = b.div(step.dy, step.operands[1])?;
    let d_rhs = when(step.needs[1], || {
        let product = b.mul(d_lhs, step.y)?;
        b.unary(UnaryFn::Neg, product)
    })?;
    Ok(vec![Some(d_lhs), d_rhs])
}

/// `max` and `min`: all of `dy` goes to the operand that was chosen.
fn extreme(
    b: &mut GraphBuilder,
    step: &Step,
    chosen: CompareFn,
) -> Result<Contributions, GraphError> {
    let first = b.compare(chosen, step.operands[0], step.operands[1])?;
    let zero = b.scalar(0.0)?;
    let d_lhs = when(step.needs[0], || b.select(first, step.dy, zero))?;
    Ok(vec![d_lhs, when(step.needs[1], || b.select(first, zero, step.dy))?])
}

/// `d(a^e) = dy * e * a^(e - 1)` and `dy * a^e * ln a`. Where the formula
/// would multiply zero by infinity (`e = 0`, `a <= 0`), the derivative is 0.
fn pow(b: &mut GraphBuilder, step: &Step) -> Result<Contributions, GraphError> {
    let (base, exponent) = (step.operands[0], step.operands[1]);
    let (zero, one) = (b.scalar(0.0)?, b.scalar(1.0)?);
    let d_base = when(step.needs[0], || {
        let lower = b.sub(exponent, one)?;
        let power = b.binary(BinaryFn::Pow, base, lower)?;
        let slope = b.mul(exponent, power)?;
        let flat = b.compare(CompareFn::Eq, exponent, zero)?;
        let slope = b.select(flat, zero, slope)?;
        b.mul(step.dy, slope)
    })?;
    let d_exponent = when(step.needs[1], || {
        let positive = b.compare(CompareFn::Gt, base, zero)?;
        let safe = b.select(positive, base, one)?;
        let log = b.unary(UnaryFn::Log, safe)?;
        let slope = b.mul(step.y, log)?;
        let slope = b.select(positive, slope, zero)?;
        b.mul(step.dy, slope)
    })?;
    Ok(vec![d_base, d_exponent])
}

pub(super) fn select(b: &mut GraphBuilder, step: &Step) -> Result<Contributions, GraphError> {
    let condition = step.operands[0];
    let zero = b.scalar(0.0)?;
    let d_a = when(step.needs[1], || b.select(condition, step.dy, zero))?;
    let d_b = when(step.needs[2], || b.select(condition, zero, step.dy))?;
    sum_to_operands(b, step, vec![None, d_a, d_b])
}

pub(super) fn broadcast(b: &mut GraphBuilder, step: &Step) -> Result<Contributions, GraphError> {
    sum_to_operands(b, step, vec![Some(step.dy)])
}

/// Undoes broadcasting, and drops what is not needed.
fn sum_to_operands(
    b: &mut GraphBuilder,
    step: &Step,
    full: Vec<Option<NodeId>>,
) -> Result<Contributions, GraphError> {
    let mut contributions = Vec::with_capacity(full.len());
    for ((contribution, &operand), &needed) in full.iter().zip(&step.operands).zip(&step.needs) {
        contributions.push(match contribution {
            Some(contribution) if needed => {
                let shape = b.shape(operand).clone();
                Some(b.sum_to(*contribution, &shape)?)
            }
            _ => None,
        });
    }
    Ok(contributions)
}
