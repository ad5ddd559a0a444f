//! Checks of results that need not be computed again, and comparisons of
//! results that need not agree in every bit.
//!
//! | what returned | check | guarantee |
//! |---|---|---|
//! | a matrix product | [`freivalds`]: random probes, far cheaper than the product | a fault well above round-off is found with a stated probability |
//! | a task of the relaxed class, payload at hand | [`normwise::Distance::between`] | bounded influence, not equality |
//! | the same, payload not at hand | [`projection`] and [`normwise::Distance::estimated`] | the same, with a stated probability |
//! | a task of the strict class | none of these: digests are equal, or the referee looks | equality |
//!
//! No I/O, no clock, no random source: seeds are arguments. Whoever checks
//! draws the seed after the result was committed; a seed that a contributor
//! knows before proves nothing.

pub mod freivalds;
mod lanes;
pub mod normwise;
pub mod projection;
mod sweep;

pub use freivalds::{Operand, Product, ProductError, Verdict, check_product};
pub use normwise::{Calibration, CalibrationRule, Distance, Tolerance};
pub use projection::project;
