//! The job document as a requester posts it. Layers and schedules are the graph
//! crate's, whose JSON is the documented one.

use super::combine::Combine;
use super::divergence::OnDivergence;
use super::terms::{BudgetSpec, Deadline, FALLBACK_AFTER_S, JobTerms, WhenSpent};
use raven_engine::{Category, Fallback, Rates, Verification};
use raven_graph::{AdamSpec, ModelSpec, OptimizerSpec, Schedule, SgdSpec};
use raven_protocol::{Numerics, Seed};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A training job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    pub name: String,
    /// `ds_…`
    pub dataset: String,
    /// Whether the public network page shows its name and loss curve.
    #[serde(default)]
    pub listed: bool,
    /// What it is for, which visitors and sites may refuse.
    #[serde(default, skip_serializing_if = "is_other")]
    pub category: Category,
    /// Drawn by the coordinator where it is absent.
    #[serde(default)]
    pub seed: Option<SeedNumber>,
    /// Whether every result must have the same bits, which keeps GPUs out.
    #[serde(default = "relaxed")]
    pub numerics: Numerics,
    /// How results are checked.
    #[serde(default)]
    pub verification: Verification,
    #[serde(default)]
    pub placement: PlacementKind,
    /// When it ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// What it may cost at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSpec>,
    /// What it may hold at most when it is posted: otherwise it is refused. A quote does not
    /// bind, and what is measured may have moved since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_nano_usd_max: Option<u64>,
    /// What happens where the money that it holds is used up.
    #[serde(default, skip_serializing_if = "WhenSpent::is_pause")]
    pub when_spent: WhenSpent,
    /// What happens where nobody can work on it for `fallback_after_s`.
    #[serde(default)]
    pub fallback: Fallback,
    #[serde(default = "fallback_after_s")]
    pub fallback_after_s: u32,
    /// A list of layers.
    pub model: ModelSpec,
    pub optimizer: Optimizer,
    pub training: Training,
}

/// A 64-bit seed: a JSON number, or text such as `"0x0000000000000007"` where
/// a JSON library would lose bits beyond 2^53. It is always written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedNumber(pub u64);

impl Serialize for SeedNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Seed(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SeedNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        let rule = "a whole number below 2^64, or 0x and 16 lower-case hex digits";
        match Form::deserialize(deserializer) {
            Ok(Form::Number(number)) => Ok(SeedNumber(number)),
            Ok(Form::Text(text)) => text
                .parse::<Seed>()
                .map(|seed| SeedNumber(seed.0))
                .map_err(|_| serde::de::Error::custom(rule)),
            Err(_) => Err(serde::de::Error::custom(rule)),
        }
    }
}

const fn fallback_after_s() -> u32 {
    FALLBACK_AFTER_S
}

const fn relaxed() -> Numerics {
    Numerics::Relaxed
}

/// Documents from before there were categories read back as they were written.
fn is_other(category: &Category) -> bool {
    *category == Category::Other
}

/// Who holds the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementKind {
    /// Every contributor gets the weights of the job that it works for.
    #[default]
    Replica,
    /// The coordinator; no contributor sees more than half of the weights.
    Master,
}

impl PlacementKind {
    /// The name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            PlacementKind::Replica => "replica",
            PlacementKind::Master => "master",
        }
    }
}

/// How weights follow gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Optimizer {
    Sgd(Sgd),
    Adam(Adam),
    #[serde(rename = "adamw")]
    AdamW(Adam),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    pub momentum: f32,
    pub nesterov: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
}

impl Default for Adam {
    fn default() -> Self {
        let AdamSpec { beta1, beta2, epsilon, .. } = AdamSpec::default();
        Adam { beta1, beta2, epsilon }
    }
}

impl JobSpec {
    /// The terms that it is posted with.
    pub fn terms(&self) -> JobTerms {
        JobTerms {
            deadline: self.deadline,
            budget: self.budget,
            when_spent: self.when_spent,
            escrow: None,
            operator_cost_max: None,
            fallback: self.fallback,
            fallback_after_s: self.fallback_after_s,
            rates: Rates::default(),
            allowance: None,
        }
    }

    /// The optimizer as the graph crate builds it.
    pub fn optimizer(&self) -> OptimizerSpec {
        let Training { weight_decay, clip_norm, .. } = self.training;
        let adam = |Adam { beta1, beta2, epsilon }: Adam| AdamSpec {
            beta1,
            beta2,
            epsilon,
            weight_decay,
            clip_norm,
        };
        match self.optimizer {
            Optimizer::Sgd(Sgd { momentum, nesterov }) => {
                OptimizerSpec::Sgd(SgdSpec { momentum, nesterov, weight_decay, clip_norm })
            }
            Optimizer::Adam(spec) => OptimizerSpec::Adam(adam(spec)),
            Optimizer::AdamW(spec) => OptimizerSpec::AdamW(adam(spec)),
        }
    }
}

/// How long and in what portions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    pub epochs: u32,
    /// Rows of an optimizer step.
    pub batch: u32,
    /// Rows of one run of the graph.
    #[serde(default = "micro_batch")]
    pub micro_batch: u32,
    /// The learning rate over the steps of the job.
    pub schedule: Schedule,
    #[serde(default)]
    pub weight_decay: f32,
    #[serde(default)]
    pub clip_norm: Option<f32>,
    /// How the gradients of a round become one.
    #[serde(default, skip_serializing_if = "Combine::is_mean")]
    pub combine: Combine,
    /// What becomes of it where its loss diverges; by default it ends where that is
    /// no finite number, and goes on otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_divergence: Option<OnDivergence>,
    #[serde(default)]
    pub early_stopping: Option<EarlyStoppingSpec>,
}

const fn micro_batch() -> u32 {
    32
}

/// Ends a job whose evaluation loss no longer falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingSpec {
    pub patience: u32,
    #[serde(default)]
    pub min_delta: f32,
}
