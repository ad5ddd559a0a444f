//! How the gradients of a round become one: `training.combine` of the document.

use super::{JobError, PlacementKind};
use raven_engine::groups;
use serde::{Deserialize, Serialize};

/// Rounds of centred clipping; each goes over all gradients twice.
const ITERATIONS_MAX: u32 = 16;

/// What becomes of the gradients of a batch's groups. Every rule but `mean` works
/// on `groups` fixed parts of the batch, each computed apart from the others, so
/// that whoever spoils one spoils one voice of many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Combine {
    /// The mean over all samples, added along the tree.
    Mean {},
    /// Each group's mean gradient is scaled down to `norm` at most, then the mean
    /// over all samples.
    ClippedMean {
        groups: u32,
        norm: f32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<f32>,
    },
    /// Karimireddy, He and Jaggi (2021), from the groups' median: `iterations`
    /// times, the mean of the differences to it, each scaled down to `radius`, is
    /// added to it.
    CenteredClipping {
        groups: u32,
        radius: f32,
        #[serde(default = "iterations")]
        iterations: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<f32>,
    },
    /// Yin et al. (2018): of each coordinate the `trim` greatest and smallest
    /// values are dropped, the others' mean is taken.
    TrimmedMean {
        groups: u32,
        trim: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<f32>,
    },
}

const fn iterations() -> u32 {
    3
}

impl Default for Combine {
    fn default() -> Self {
        Combine::Mean {}
    }
}

/// Micro-batches of a job's rounds.
#[derive(Clone, Copy, Debug)]
pub struct RoundSizes {
    pub whole: u32,
    /// Those of an epoch's last round.
    pub last: u32,
}

impl Combine {
    /// Groups of a batch; 1 where there are none.
    pub const fn groups(&self) -> u32 {
        match *self {
            Combine::Mean {} => 1,
            Combine::ClippedMean { groups, .. }
            | Combine::CenteredClipping { groups, .. }
            | Combine::TrimmedMean { groups, .. } => groups,
        }
    }

    /// The largest norm that a group's mean gradient may have, as a multiple of
    /// the groups' median norm.
    pub const fn guard(&self) -> Option<f32> {
        match *self {
            Combine::Mean {} => None,
            Combine::ClippedMean { guard, .. }
            | Combine::CenteredClipping { guard, .. }
            | Combine::TrimmedMean { guard, .. } => guard,
        }
    }

    /// Whether gradients are only added.
    pub const fn is_mean(&self) -> bool {
        matches!(self, Combine::Mean {})
    }

    /// Checks the rule against the rounds that it is for.
    ///
    /// # Errors
    /// [`JobError::Field`] and [`JobError::Limit`], with the field at fault.
    pub(super) fn check(
        &self,
        placement: PlacementKind,
        rounds: RoundSizes,
    ) -> Result<(), JobError> {
        if self.is_mean() {
            return Ok(());
        }
        if placement == PlacementKind::Master {
            let rule = "the rule mean where the placement is master";
            return Err(field("training.combine", rule, "another rule"));
        }
        check_groups(self.groups(), rounds)?;
        match *self {
            Combine::Mean {} => {}
            Combine::ClippedMean { norm, .. } => positive("training.combine.norm", norm)?,
            Combine::CenteredClipping { radius, iterations, .. } => {
                positive("training.combine.radius", radius)?;
                if !(1..=ITERATIONS_MAX).contains(&iterations) {
                    let rule = format!("1 to {ITERATIONS_MAX}");
                    return Err(field("training.combine.iterations", &rule, iterations));
                }
            }
            Combine::TrimmedMean { groups, trim, .. } => check_trim(groups, trim, rounds)?,
        }
        // With less than 1 the groups' median itself would be left out.
        match self.guard() {
            Some(guard) if !(guard.is_finite() && guard >= 1.0) => {
                Err(field("training.combine.guard", "finite and at least 1", guard))
            }
            _ => Ok(()),
        }
    }
}

fn check_groups(found: u32, rounds: RoundSizes) -> Result<(), JobError> {
    let name = "training.combine.groups";
    if found < 2 || !found.is_power_of_two() {
        return Err(field(name, "a power of two of at least 2", found));
    }
    let smallest = rounds.whole.min(rounds.last);
    let (limit, unit) = if smallest < groups::GROUPS_MAX {
        (smallest, "groups for the micro-batches of the smallest round")
    } else {
        (groups::GROUPS_MAX, "groups")
    };
    over(name, unit, limit, found)
}

/// A batch whose number of micro-batches is no power of two has fewer groups than
/// were named: something must be left of those of every round.
fn check_trim(named: u32, trim: u32, rounds: RoundSizes) -> Result<(), JobError> {
    let name = "training.combine.trim";
    if trim == 0 {
        return Err(field(name, "at least 1", trim));
    }
    let least = groups::count(rounds.whole, named).min(groups::count(rounds.last, named));
    over(name, "groups dropped at each end", (least - 1) / 2, trim)
}

fn over(field: &'static str, unit: &'static str, limit: u32, found: u32) -> Result<(), JobError> {
    if found <= limit {
        return Ok(());
    }
    Err(JobError::Limit { field, unit, limit: limit.into(), found: found.into() })
}

fn positive(name: &'static str, found: f32) -> Result<(), JobError> {
    let is_fine = found.is_finite() && found > 0.0;
    if is_fine { Ok(()) } else { Err(field(name, "finite and positive", found)) }
}

fn field(field: &'static str, rule: &str, found: impl ToString) -> JobError {
    JobError::Field { field, rule: rule.into(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What is refused of a rule, or nothing.
    fn refused(rule: Value, whole: u32, last: u32) -> Option<(String, Option<(u64, u64)>)> {
        let combine: Combine = serde_json::from_value(rule).expect("a rule");
        let checked = combine.check(PlacementKind::Replica, RoundSizes { whole, last });
        checked.err().map(|error| (error.field(), error.limit()))
    }

    #[test]
    fn refusals_name_the_field_and_its_limit() {
        let trimmed =
            |groups, trim| json!({"rule": "trimmed_mean", "groups": groups, "trim": trim});
        let is = |name: &str, limit| Some((format!("training.combine.{name}"), limit));
        assert_eq!(refused(trimmed(8, 1), 16, 16), None);
        assert_eq!(refused(trimmed(6, 1), 16, 16), is("groups", None));
        assert_eq!(refused(trimmed(1, 1), 16, 16), is("groups", None));
        assert_eq!(refused(trimmed(8, 1), 16, 7), is("groups", Some((7, 8))));
        assert_eq!(refused(trimmed(128, 1), 256, 256), is("groups", Some((64, 128))));
        assert_eq!(refused(trimmed(8, 0), 16, 16), is("trim", None));
        assert_eq!(refused(trimmed(8, 3), 16, 16), None);
        assert_eq!(refused(trimmed(8, 4), 16, 16), is("trim", Some((3, 4))));
        // Nine micro-batches are five groups, of two and at last of one.
        assert_eq!(refused(trimmed(8, 3), 16, 9), is("trim", Some((2, 3))));
        let clipped = |norm, guard: Value| json!({"rule": "clipped_mean", "groups": 4, "norm": norm, "guard": guard});
        assert_eq!(refused(clipped(0.0, json!(null)), 4, 4), is("norm", None));
        assert_eq!(refused(clipped(1.0, json!(0.5)), 4, 4), is("guard", None));
        assert_eq!(refused(clipped(1.0, json!(3)), 4, 4), None);
        let centered = |radius, iterations| json!({"rule": "centered_clipping", "groups": 4, "radius": radius, "iterations": iterations});
        assert_eq!(refused(centered(-1.0, 1), 4, 4), is("radius", None));
        assert_eq!(refused(centered(1.0, 17), 4, 4), is("iterations", None));
        assert_eq!(refused(centered(1.0, 1), 4, 4), None);
    }

    #[test]
    fn only_plain_means_go_with_placement_master() {
        let rounds = RoundSizes { whole: 8, last: 8 };
        let rule = Combine::TrimmedMean { groups: 4, trim: 1, guard: None };
        let error = rule.check(PlacementKind::Master, rounds).expect_err("refused");
        assert_eq!(error.field(), "training.combine");
        assert!(Combine::default().check(PlacementKind::Master, rounds).is_ok());
    }

    #[test]
    fn documents_without_a_rule_stay_what_they_are() {
        let stored = json!({"epochs": 1, "batch": 8, "micro_batch": 8, "weight_decay": 0.0, "clip_norm": null,
            "early_stopping": null, "schedule": {"kind": "constant", "learning_rate": 0.5}});
        let training: crate::job::Training = serde_json::from_value(stored).expect("training");
        assert!(training.combine.is_mean() && training.combine.groups() == 1);
        let written = serde_json::to_value(training).expect("written");
        assert!(written.get("combine").is_none(), "{written}");
    }

    #[test]
    fn what_a_rule_does_not_know_is_no_field_of_it() {
        for unknown in [
            json!({"rule": "mean", "groups": 8}),
            json!({"rule": "trimmed_mean", "groups": 8, "trim": 1, "norm": 1.0}),
            json!({"rule": "clipped_mean", "groups": 8}),
            json!({"rule": "krum", "groups": 8}),
        ] {
            assert!(serde_json::from_value::<Combine>(unknown.clone()).is_err(), "{unknown}");
        }
        let rule = json!({"rule": "trimmed_mean", "groups": 8, "trim": 1});
        let combine: Combine = serde_json::from_value(rule.clone()).expect("a rule");
        assert_eq!(serde_json::to_value(combine).expect("written"), rule);
    }
}
