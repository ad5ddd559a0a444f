//! Placement `master`: into how many slices the weights are cut, so that no
//! contributor is ever shown more than half of the model.

use super::JobError;
use raven_engine::{PartPlan, Placement, StagePlan};
use raven_graph::cut::Stage;
use raven_graph::{Cut, ValidGraph, cut_master};
use std::collections::{BTreeMap, HashSet};

/// Numbers of slices, and how many of them one contributor may be shown, in
/// the order in which they are tried. With two of four, two contributors
/// suffice; where rounding would make that more than half of the model, the
/// cut is finer and takes more of them.
const CHOICES: [(u32, u32); 4] = [(4, 2), (5, 2), (8, 2), (8, 1)];

/// A training graph cut into stages, with the slices of its weights.
#[derive(Debug)]
pub struct SlicedCut {
    /// The stages.
    pub cut: Cut,
    slices: u32,
    held_max: u32,
}

impl SlicedCut {
    /// Cuts `train`, whose parameters are the inputs called `params`.
    ///
    /// # Errors
    /// What [`cut_master`] refuses, and a model that cannot be divided so finely.
    pub fn of(train: &ValidGraph, params: &[String]) -> Result<Self, JobError> {
        let half = elements(train, params) / 2;
        for (slices, held_max) in CHOICES {
            let cut = cut_master(train, params, slices)?;
            if shown_max(&cut, held_max) <= half {
                return Ok(SlicedCut { cut, slices, held_max });
            }
        }
        Err(JobError::Indivisible)
    }

    /// The engine's view.
    pub fn placement(&self) -> Placement {
        let stages = self.cut.stages.iter().map(|stage| match stage {
            Stage::Local(_) => StagePlan::Local,
            Stage::Pushed(entries) => {
                let parts = entries.iter().flat_map(|entry| entry.parts.iter().enumerate());
                let parts = parts.map(|(index, part)| {
                    let cost = part.graph.cost();
                    PartPlan {
                        graph: part.graph.id(),
                        flops: cost.flops,
                        bytes_peak: cost.bytes_peak,
                        operand_bytes: cost.bytes_in,
                        result_bytes: cost.bytes_out,
                        slice: part.held.as_ref().map(|_| index as u32),
                    }
                });
                StagePlan::Pushed { parts: parts.collect() }
            }
        });
        Placement::Master {
            stages: stages.collect(),
            slices: self.slices,
            slices_held_max: self.held_max,
        }
    }
}

/// Numbers in all parameters, biases included.
fn elements(train: &ValidGraph, params: &[String]) -> u64 {
    let sizes = params.iter().filter_map(|name| train.input(name)?.ty.shape.elements());
    sizes.sum()
}

/// The most numbers that a contributor can see through `held_max` slices.
fn shown_max(cut: &Cut, held_max: u32) -> u64 {
    let mut seen = HashSet::new();
    let mut slices: BTreeMap<usize, u64> = BTreeMap::new();
    for stage in &cut.stages {
        let Stage::Pushed(entries) = stage else { continue };
        for (index, part) in entries.iter().flat_map(|entry| entry.parts.iter().enumerate()) {
            let Some(held) = &part.held else { continue };
            // Forward and backward show the same range of a weight: it counts once.
            if seen.insert((index, held)) {
                let weight = part.inputs.iter().find(|input| input.value.name == held.param);
                let ty =
                    weight.and_then(|input| part.graph.input(&input.name)).map(|input| &input.ty);
                let shown = ty.and_then(|ty| ty.shape.elements()).unwrap_or(0);
                *slices.entry(index).or_default() += shown;
            }
        }
    }
    let mut sizes: Vec<u64> = slices.into_values().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.iter().take(held_max as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_graph::model::{DataSpec, ModelSpec, Target, lower};
    use raven_graph::{DType, Limits, TensorType};

    /// The cut of an MLP over 16 features, and its number of parameters.
    fn mlp(units: &[u32]) -> (SlicedCut, u64) {
        let layers: Vec<_> = units
            .iter()
            .map(|units| serde_json::json!({"type": "dense", "units": units}))
            .collect();
        let model: ModelSpec =
            serde_json::from_value(serde_json::json!({"layers": layers, "loss": "cross_entropy"}))
                .expect("model");
        let data = DataSpec {
            features: TensorType::new(DType::F32, [16]),
            scale: 1.0,
            target: Target::Classes { count: *units.last().expect("layers") },
        };
        let lowered = lower(&model, &data, 8, &Limits::default()).expect("lowers");
        let names: Vec<String> = lowered.params.iter().map(|p| p.name.clone()).collect();
        let sliced = SlicedCut::of(&lowered.train, &names).expect("cuts");
        (sliced, elements(&lowered.train, &names))
    }

    #[test]
    fn nobody_is_shown_more_than_half() {
        for units in [&[64, 32, 10][..], &[10], &[7, 3], &[32, 10], &[128, 64, 10]] {
            let (sliced, all) = mlp(units);
            let shown = shown_max(&sliced.cut, sliced.held_max);
            assert!(shown > 0 && shown * 2 <= all, "{units:?}: {shown} of {all}");
        }
    }

    #[test]
    fn rounding_that_would_show_more_takes_a_finer_cut() {
        // Ten columns in four slices are 2, 3, 2 and 3: two of them can be 60 %.
        assert_eq!(mlp(&[10]).0.slices, 5);
        assert_eq!(mlp(&[128, 64, 12]).0.slices, 4);
    }
}
