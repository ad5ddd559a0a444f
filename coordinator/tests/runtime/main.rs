//! Jobs that real contributors compute, without the HTTP API around them.

mod about;
mod bonuses;
mod choices;
mod earlier;
mod executor;
mod kernel_products;
mod newcomers;
mod outcomes;
mod pay;
mod referee;
mod relaxed;
mod robust;
mod sites;
#[path = "../support/mod.rs"]
mod support;
mod terms;
mod top_up;
mod training;
