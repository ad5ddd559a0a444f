//! A whole network in one process: the real engine, simulated contributors,
//! links, faults and a shell whose tensors are numbers, all from one seed.
//!
//! Micro-batches' results are integers that combine by a function that is
//! neither commutative nor associative, so two runs agree on a job's last
//! state only if every result went to the same place of the same tree.

pub mod adversary;
mod agenda;
pub mod auditor;
mod charged;
mod checks;
mod contributors;
mod effects;
pub mod faults;
pub mod figures;
pub mod history;
pub mod ids;
pub mod kernel;
mod messages;
pub mod network;
pub mod node;
pub mod plans;
pub mod proofs;
pub mod relaxed;
pub mod rng;
pub mod shell;
pub mod sim;
pub mod swarm;

pub use adversary::{About, Adversary, Lie};
pub use faults::Faults;
pub use network::Network;
pub use node::NodeSpec;
pub use sim::{Outcome, Scenario, Sim};
