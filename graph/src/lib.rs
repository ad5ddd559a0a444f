//! Typed tensor-op graphs: shapes, cost, validation, autodiff and cutting.
//!
//! This crate reads no clock, random source, file or socket, and knows no
//! kernel. The same code judges a graph on the coordinator and in a visitor's
//! browser.

pub mod builder;
pub mod canonical;
pub mod cost;
pub mod cut;
pub mod dtype;
pub mod error;
pub mod gradient;
pub mod infer;
pub mod limits;
pub mod model;
pub mod op;
pub mod optimizer;
pub mod pass;
pub mod philox;
pub mod program;
mod scan;
pub mod schedule;
pub mod valid;

pub use builder::GraphBuilder;
pub use canonical::GraphId;
pub use cost::Cost;
pub use cut::{Cut, CutError, cut_layers, cut_master};
pub use dtype::{DType, Shape, TensorType};
pub use error::{GraphError, OpError};
pub use gradient::grad;
pub use limits::Limits;
pub use model::{DataSpec, LoweredModel, ModelError, ModelSpec, ParamSpec, Target, lower};
pub use op::{BinaryFn, CompareFn, Conv2dAttrs, Distribution, Op, Pool2dAttrs, ReduceFn, UnaryFn};
pub use optimizer::{AdamSpec, OptimizerSpec, SgdSpec, StepGraph, step_graph};
pub use program::{GRAPH_VERSION, Graph, InputSpec, Node, NodeId, Output};
pub use schedule::Schedule;
pub use valid::ValidGraph;
