//! Sans-I/O, tensor-free state machine: jobs, rounds, leases, sessions. No clock, no socket, no file.
//!
//! [`Engine::handle`] takes an [`Event`] and the time; [`Engine::poll_effect`]
//! gives [`Effect`]s. Everything that the engine does is a function of its
//! configuration and the events: no random source, no hash order, no float
//! that decides a result. `scheduler` decides and only looks; `dispatch`,
//! `answer` and `progress` apply.

mod active;
mod algorithm;
pub mod allowance;
mod answer;
mod arrival;
pub mod category;
pub mod config;
mod dispatch;
pub mod divergence;
pub mod effect;
mod ending;
mod engine;
pub mod event;
pub mod groups;
mod ids;
pub mod job;
mod lease;
pub mod ledger;
pub mod money;
mod opening;
pub mod plan;
mod plan_check;
mod progress;
pub mod rates;
mod run_length;
mod runs;
pub mod sampling;
mod scheduler;
mod session;
mod speed;
mod stage;
pub mod stats;
mod tally;
mod terms;
mod timer;
pub mod verify;
pub mod view;
mod watch;
mod world;

pub use allowance::Allowance;
pub use category::{Category, CategorySet, RefusedCategories};
pub use config::EngineConfig;
pub use divergence::{Divergence, LossMonitor};
pub use effect::{
    Acceptance, Credit, Earlier, Effect, EffectId, Outbound, Payer, Proof, Record, SetBack,
    Testimony, TreePart, Void, Work,
};
pub use engine::Engine;
pub use event::{
    Agreement, Beneficiary, Check, ContributorId, EffectError, Event, Metrics, Millis,
    NetworkPrefix, Oddness, Outcome, PayloadId, SessionProfile, SiteId,
};
pub use job::{Cause, CompletedReason, JobPhase, JobState};
pub use plan::{
    Algorithm, EarlyStopping, JobPlan, PartPlan, Patience, Placement, ResumePoint, StagePlan,
    SyncSgd,
};
pub use plan_check::PlanError;
pub use rates::Rates;
pub use raven_protocol::tree;
pub use sampling::{EpochOrder, Layout, LayoutError, micro_batch_rows};
pub use stats::Stats;
pub use tally::Tally;
pub use terms::{Budget, Fallback, Spent, Terms};
pub use verify::{Identity, OpenWord, Trust, Verification};
pub use view::{JobView, SessionStatus, SessionView};
