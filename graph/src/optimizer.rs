//! The optimizer step as a graph, so that it runs on the kernels that
//! everything else runs on.

use crate::builder::GraphBuilder;
use crate::dtype::{DType, Shape};
use crate::error::GraphError;
use crate::limits::Limits;
use crate::model::ParamSpec;
use crate::op::{BinaryFn, UnaryFn};
use crate::pass;
use crate::program::NodeId;
use crate::valid::ValidGraph;
use serde::{Deserialize, Serialize};

/// How weights follow gradients. `g` is the mean gradient over the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OptimizerSpec {
    /// Stochastic gradient descent; weight decay is added to the gradient (L2).
    Sgd(SgdSpec),
    /// Kingma and Ba (2015), with bias correction; weight decay as in SGD.
    Adam(AdamSpec),
    /// Loshchilov and Hutter (2019): Adam with decoupled weight decay,
    /// `p -= lr * weight_decay * p`.
    #[serde(rename = "adamw")]
    AdamW(AdamSpec),
}

/// `m = momentum * m + g; p -= lr * m`, or with Nesterov's look-ahead
/// `p -= lr * (g + momentum * m)`. Without momentum there is no slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdSpec {
    /// At least 0, less than 1.
    pub momentum: f32,
    /// Whether to look ahead along the momentum.
    pub nesterov: bool,
    /// Added to the gradient times the weight.
    pub weight_decay: f32,
    /// The mean gradient's global L2 norm is scaled down to this.
    pub clip_norm: Option<f32>,
}

/// `m` and `v` average `g` and `g^2`; `p -= lr * m_hat / (sqrt(v_hat) + epsilon)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamSpec {
    /// Fraction of `m` that is kept per step.
    pub beta1: f32,
    /// Fraction of `v` that is kept per step.
    pub beta2: f32,
    /// Keeps the divisor from zero.
    pub epsilon: f32,
    /// See the method.
    pub weight_decay: f32,
    /// The mean gradient's global L2 norm is scaled down to this.
    pub clip_norm: Option<f32>,
}

impl Default for AdamSpec {
    fn default() -> Self {
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        AdamSpec { beta1, beta2, epsilon, weight_decay: 0.0, clip_norm: None }
    }
}

/// One optimizer step.
///
/// Inputs: every parameter by name, `grad.<p>` (a sum over samples), the
/// scalars `count` (samples in the sum), `lr` and `step` (from 1), and the
/// slots. Outputs: every parameter and slot by name, and `grad_norm`, the
/// global L2 norm of the mean gradient before clipping and weight decay.
#[derive(Clone, Debug, PartialEq)]
pub struct StepGraph {
    /// The step itself.
    pub graph: ValidGraph,
    /// State that lives from step to step; zeros before the first.
    pub slots: Vec<ParamSpec>,
}

impl OptimizerSpec {
    /// Stochastic gradient descent with momentum.
    pub fn sgd(momentum: f32) -> Self {
        OptimizerSpec::Sgd(SgdSpec { momentum, ..SgdSpec::default() })
    }

    /// Adam with its usual constants.
    pub fn adam() -> Self {
        OptimizerSpec::Adam(AdamSpec::default())
    }

    /// The factor of the weights, L2 or decoupled by method.
    pub const fn weight_decay(&self) -> f32 {
        match self {
            OptimizerSpec::Sgd(sgd) => sgd.weight_decay,
            OptimizerSpec::Adam(adam) | OptimizerSpec::AdamW(adam) => adam.weight_decay,
        }
    }

    /// The largest norm of the mean gradient, where one is set.
    pub const fn clip_norm(&self) -> Option<f32> {
        match self {
            OptimizerSpec::Sgd(sgd) => sgd.clip_norm,
            OptimizerSpec::Adam(adam) | OptimizerSpec::AdamW(adam) => adam.clip_norm,
        }
    }

    /// The same method with another weight decay.
    pub fn with_weight_decay(mut self, decay: f32) -> Self {
        match &mut self {
            OptimizerSpec::Sgd(sgd) => sgd.weight_decay = decay,
            OptimizerSpec::Adam(adam) | OptimizerSpec::AdamW(adam) => adam.weight_decay = decay,
        }
        self
    }

    /// The same method with another largest norm.
    pub fn with_clip_norm(mut self, norm: Option<f32>) -> Self {
        match &mut self {
            OptimizerSpec::Sgd(sgd) => sgd.clip_norm = norm,
            OptimizerSpec::Adam(adam) | OptimizerSpec::AdamW(adam) => adam.clip_norm = norm,
        }
        self
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`GraphError::Parameter`] with the field.
    pub fn check(&self) -> Result<(), GraphError> {
        let below_one = |field, found: f32| {
            let rule = "at least 0 and less than 1";
            let fits = (0.0..1.0).contains(&found);
            if fits { Ok(()) } else { Err(GraphError::Parameter { field, rule, found }) }
        };
        let above_zero = |field, found: f32| {
            let fits = found.is_finite() && found > 0.0;
            let rule = "finite and positive";
            if fits { Ok(()) } else { Err(GraphError::Parameter { field, rule, found }) }
        };
        match self {
            OptimizerSpec::Sgd(sgd) => below_one("optimizer.momentum", sgd.momentum)?,
            OptimizerSpec::Adam(adam) | OptimizerSpec::AdamW(adam) => {
                below_one("optimizer.beta1", adam.beta1)?;
                below_one("optimizer.beta2", adam.beta2)?;
                above_zero("optimizer.epsilon", adam.epsilon)?;
            }
        }
        let found = self.weight_decay();
        if !(found.is_finite() && found >= 0.0) {
            let (field, rule) = ("optimizer.weight_decay", "finite and not negative");
            return Err(GraphError::Parameter { field, rule, found });
        }
        self.clip_norm().map_or(Ok(()), |norm| above_zero("optimizer.clip_norm", norm))
    }
}

/// Builds the step of an optimizer over a list of parameters.
///
/// # Errors
/// What [`OptimizerSpec::check`] and the builder refuse.
pub fn step_graph(
    params: &[ParamSpec],
    spec: &OptimizerSpec,
    limits: &Limits,
) -> Result<StepGraph, GraphError> {
    spec.check()?;
    let mut builder = GraphBuilder::new(limits);
    let b = &mut builder;
    let scalar = |b: &mut GraphBuilder, name| b.input(name, DType::F32, Shape::scalar());
    let (count, lr, step) = (scalar(b, "count")?, scalar(b, "lr")?, scalar(b, "step")?);
    let mut weights = Vec::with_capacity(params.len());
    let mut means = Vec::with_capacity(params.len());
    for param in params {
        weights.push(b.input(&param.name, DType::F32, param.shape.clone())?);
        let sum = b.input(format!("grad.{}", param.name), DType::F32, param.shape.clone())?;
        means.push(b.div(sum, count)?);
    }
    let norm = global_norm(b, &means)?;
    b.output("grad_norm", norm);
    if let Some(limit) = spec.clip_norm() {
        clip(b, &mut means, norm, limit)?;
    }
    let mut rule = Rule { b, spec, lr, step, slots: Vec::new() };
    for ((param, &weight), &mean) in params.iter().zip(&weights).zip(&means) {
        let updated = rule.update(param, weight, mean)?;
        rule.b.output(&param.name, updated);
    }
    let slots = rule.slots;
    let graph = pass::optimize(&builder.finish()?)?;
    Ok(StepGraph { graph, slots })
}

/// The L2 norm over all parameters, added in their order.
fn global_norm(b: &mut GraphBuilder, means: &[NodeId]) -> Result<NodeId, GraphError> {
    let mut total = b.scalar(0.0)?;
    for &mean in means {
        let square = b.mul(mean, mean)?;
        let sum = b.sum_all(square)?;
        total = b.add(total, sum)?;
    }
    b.unary(UnaryFn::Sqrt, total)
}

/// Scales by `limit / max(norm, limit)`, which is exactly 1 for small norms.
fn clip(
    b: &mut GraphBuilder,
    means: &mut [NodeId],
    norm: NodeId,
    limit: f32,
) -> Result<(), GraphError> {
    let limit = b.scalar(limit)?;
    let larger = b.binary(BinaryFn::Max, norm, limit)?;
    let factor = b.div(limit, larger)?;
    for mean in means {
        *mean = b.mul(*mean, factor)?;
    }
    Ok(())
}

/// The update rule at work on one parameter after another.
struct Rule<'a> {
    b: &'a mut GraphBuilder,
    spec: &'a OptimizerSpec,
    lr: NodeId,
    step: NodeId,
    slots: Vec<ParamSpec>,
}

impl Rule<'_> {
    /// The new weight.
    fn update(
        &mut self,
        param: &ParamSpec,
        weight: NodeId,
        mean: NodeId,
    ) -> Result<NodeId, GraphError> {
        match self.spec {
            OptimizerSpec::Sgd(sgd) => {
                let gradient = self.with_decay(weight, mean)?;
                let direction = self.momentum(param, gradient, sgd)?;
                let change = self.b.mul(self.lr, direction)?;
                self.b.sub(weight, change)
            }
            OptimizerSpec::Adam(adam) => {
                let gradient = self.with_decay(weight, mean)?;
                let change = self.adam(param, gradient, adam)?;
                self.b.sub(weight, change)
            }
            OptimizerSpec::AdamW(adam) => {
                let change = self.adam(param, mean, adam)?;
                let decayed = self.decoupled_decay(weight, adam.weight_decay)?;
                self.b.sub(decayed, change)
            }
        }
    }

    /// `weight - lr * decay * weight`.
    fn decoupled_decay(&mut self, weight: NodeId, decay: f32) -> Result<NodeId, GraphError> {
        if decay == 0.0 {
            return Ok(weight);
        }
        let rate = self.b.scale(self.lr, decay)?;
        let shrink = self.b.mul(weight, rate)?;
        self.b.sub(weight, shrink)
    }

    /// The gradient with L2 weight decay added.
    fn with_decay(&mut self, weight: NodeId, mean: NodeId) -> Result<NodeId, GraphError> {
        let decay = self.spec.weight_decay();
        if decay == 0.0 {
            return Ok(mean);
        }
        let pull = self.b.scale(weight, decay)?;
        self.b.add(mean, pull)
    }

    fn momentum(
        &mut self,
        param: &ParamSpec,
        gradient: NodeId,
        sgd: &SgdSpec,
    ) -> Result<NodeId, GraphError> {
        if sgd.momentum == 0.0 {
            return Ok(gradient);
        }
        let old = self.slot("m", param)?;
        let kept = self.b.scale(old, sgd.momentum)?;
        let velocity = self.b.add(kept, gradient)?;
        self.b.output(slot_name("m", param), velocity);
        if !sgd.nesterov {
            return Ok(velocity);
        }
        let ahead = self.b.scale(velocity, sgd.momentum)?;
        self.b.add(gradient, ahead)
    }

    /// `lr * m_hat / (sqrt(v_hat) + epsilon)`.
    fn adam(
        &mut self,
        param: &ParamSpec,
        gradient: NodeId,
        adam: &AdamSpec,
    ) -> Result<NodeId, GraphError> {
        let square = self.b.mul(gradient, gradient)?;
        let mean = self.average("m", param, gradient, adam.beta1)?;
        let variance = self.average("v", param, square, adam.beta2)?;
        let deviation = self.b.unary(UnaryFn::Sqrt, variance)?;
        let epsilon = self.b.scalar(adam.epsilon)?;
        let divisor = self.b.add(deviation, epsilon)?;
        let direction = self.b.div(mean, divisor)?;
        self.b.mul(self.lr, direction)
    }

    /// `a = beta * a + (1 - beta) * x`, returned over `1 - beta^step`.
    fn average(
        &mut self,
        prefix: &str,
        param: &ParamSpec,
        x: NodeId,
        beta: f32,
    ) -> Result<NodeId, GraphError> {
        let old = self.slot(prefix, param)?;
        let kept = self.b.scale(old, beta)?;
        let added = self.b.scale(x, 1.0 - beta)?;
        let average = self.b.add(kept, added)?;
        self.b.output(slot_name(prefix, param), average);
        let base = self.b.scalar(beta)?;
        let faded = self.b.binary(BinaryFn::Pow, base, self.step)?;
        let one = self.b.scalar(1.0)?;
        let correction = self.b.sub(one, faded)?;
        self.b.div(average, correction)
    }

    /// Declares a slot of the parameter's shape.
    fn slot(&mut self, prefix: &str, param: &ParamSpec) -> Result<NodeId, GraphError> {
        let name = slot_name(prefix, param);
        let node = self.b.input(&name, DType::F32, param.shape.clone())?;
        self.slots.push(ParamSpec { name, shape: param.shape.clone() });
        Ok(node)
    }
}

fn slot_name(prefix: &str, param: &ParamSpec) -> String {
    format!("{prefix}.{}", param.name)
}
