//! Results that honest contributors do not agree on bit for bit: projections of
//! them, and the bounds within which they are compared.

use super::executor::Tensor;
use super::judge::Values;
use super::leases::{Expected, ResultError};
use raven_engine::{Agreement, ContributorId, EngineConfig};
use raven_graph::{DType, TensorType};
use raven_proof::Calibration;
use raven_proof::normwise::{CalibrationRule, Distance, Tolerance, honest_factor};
use raven_proof::projection::{PROJECTION_BYTES, from_bytes, project_bytes, to_bytes};
use raven_protocol::{Frame, LeaseId, Seed};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Norm of a difference that is rounding only.
const NOISE_NORM: f64 = 1e-6;
/// A count of hits may be one off where two classes are as likely as each other.
const HITS_OFF: f64 = 1.0;
/// The chance that an honest result does not pass by its estimate.
const REFUSED: f64 = 1e-9;

/// Random projections of a result's outputs, in their order.
#[derive(Clone, Debug)]
pub struct Sketch {
    key: Seed,
    probes: u32,
    outputs: Vec<Vec<f64>>,
}

impl Sketch {
    /// Reads the tensors of a `projected` frame.
    ///
    /// # Errors
    /// [`ResultError`] with the first tensor that is not as it was asked for.
    pub fn read(
        expected: &Expected,
        key: Seed,
        probes: u32,
        frame: &Frame<'_>,
    ) -> Result<Self, ResultError> {
        expected
            .check_as(frame, |_| TensorType::new(DType::U8, [probes, PROJECTION_BYTES as u32]))?;
        // What has the right type has whole numbers.
        let outputs = frame.tensors().map(|tensor| from_bytes(tensor.data).unwrap_or_default());
        Ok(Sketch { key, probes, outputs: outputs.collect() })
    }

    /// That of a result at hand.
    pub fn of(expected: &Expected, key: Seed, probes: u32, values: &Values) -> Self {
        let outputs = (0..).zip(&expected.outputs);
        let outputs = outputs.map(|(number, output)| {
            values
                .get(&output.name)
                .map_or_else(Vec::new, |value| project(key, number, probes, value))
        });
        Sketch { key, probes, outputs: outputs.collect() }
    }

    /// That of another result under the same key.
    pub fn like(&self, expected: &Expected, values: &Values) -> Self {
        Sketch::of(expected, self.key, self.probes, values)
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> u64 {
        let numbers: usize = self.outputs.iter().map(Vec::len).sum();
        (numbers * PROJECTION_BYTES) as u64
    }

    /// Whether `values` have these very projections.
    pub fn is_of(&self, expected: &Expected, values: &Values) -> bool {
        let found = self.like(expected, values);
        let bytes = |sketch: &Sketch| -> Vec<Vec<u8>> {
            sketch.outputs.iter().map(|output| to_bytes(output)).collect()
        };
        bytes(&found) == bytes(self)
    }
}

fn project(key: Seed, number: u32, probes: u32, value: &Tensor) -> Vec<f64> {
    // A tensor's bytes are as many as its type takes.
    project_bytes(key.0, number, probes, value.ty.dtype, &value.data).unwrap_or_default()
}

/// What the referee makes of a GPU's result.
#[derive(Debug)]
pub struct Weighed {
    pub agreement: Agreement,
    /// Why it is false.
    pub finding: Option<String>,
    /// How far outputs were off, relative to their norms.
    pub observed: Vec<(String, f64)>,
}

/// How far results may be off, by output.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    relative: BTreeMap<String, f64>,
    /// The output that counts hits.
    hits: String,
    /// Whether tasks are one product or one convolution: those have no kinks.
    is_linear: bool,
}

impl Bounds {
    /// What the rule gives before anything was observed.
    pub fn initial(hits: &str) -> Self {
        Bounds { relative: BTreeMap::new(), hits: hits.to_owned(), is_linear: false }
    }

    /// The same for tasks that are one product or one convolution.
    #[must_use]
    pub fn linear(self) -> Self {
        Bounds { is_linear: true, ..self }
    }

    fn absolute(&self, name: &str) -> f64 {
        if name == self.hits { HITS_OFF } else { NOISE_NORM }
    }

    /// What counts as agreement.
    fn tolerance(&self, name: &str) -> Tolerance {
        let relative = self.relative.get(name).copied();
        let relative = relative.unwrap_or(CalibrationRule::default().initial);
        Tolerance { relative, absolute: self.absolute(name) }
    }

    /// What may be in a model.
    fn widest(&self, name: &str) -> Tolerance {
        let relative = CalibrationRule::default().ceiling;
        Tolerance { relative, absolute: self.absolute(name) }
    }

    /// What may be honest.
    fn possible(&self, name: &str) -> Tolerance {
        let CalibrationRule { ceiling, proven, .. } = CalibrationRule::default();
        let relative = if self.is_linear { ceiling } else { proven };
        Tolerance { relative, absolute: self.absolute(name) }
    }

    /// Whether two results agree by their projections under one key.
    pub fn agree(&self, expected: &Expected, one: &Sketch, other: &Sketch) -> bool {
        let factor = honest_factor(one.probes.max(1), REFUSED);
        let pairs = one.outputs.iter().zip(&other.outputs);
        one.outputs.len() == other.outputs.len()
            && expected.outputs.iter().zip(pairs).all(|(output, (one, other))| {
                self.tolerance(&output.name).agree(one, other, factor)
            })
    }

    /// Compares a result of a GPU with what the task yields.
    pub fn weigh(&self, expected: &Expected, truth: &Values, found: &Values) -> Weighed {
        let (known, unknown): (Vec<_>, Vec<_>) =
            expected.outputs.iter().partition(|output| is_finite(truth.get(&output.name)));
        let is_far = unknown.iter().any(|output| is_finite(found.get(&output.name)));
        let outputs = known.into_iter();
        let distances = outputs.map(|output| {
            let pair = truth.get(&output.name).zip(found.get(&output.name));
            (output.name.as_str(), pair.and_then(|(truth, found)| distance(truth, found)))
        });
        let distances: Vec<(&str, Option<Distance>)> = distances.collect();
        let observed = distances.iter().filter(|(name, _)| *name != self.hits);
        let observed = observed.filter_map(|(name, distance)| {
            Some(((*name).to_owned(), distance.as_ref()?.relative()))
        });
        let observed = observed.collect();
        Weighed { observed, ..self.judge(distances, 1.0, is_far) }
    }

    /// The same of a result of which there are projections.
    pub fn weigh_sketch(&self, expected: &Expected, truth: &Values, found: &Sketch) -> Weighed {
        let outputs = (0..).zip(expected.outputs.iter().zip(&found.outputs));
        let (known, unknown): (Vec<_>, Vec<_>) =
            outputs.partition(|(_, (output, _))| is_finite(truth.get(&output.name)));
        // Projections of what is not finite are not either.
        let is_far = unknown.iter().any(|(_, (_, found))| found.iter().all(|it| it.is_finite()));
        let outputs = known.into_iter();
        let distances = outputs.map(|(number, (output, found_output))| {
            let distance = truth.get(&output.name).and_then(|truth| {
                let ours = project(found.key, number, found.probes, truth);
                let estimate = Distance::estimated(&ours, found_output).ok()?;
                let elements: Option<Vec<f32>> = truth.as_f32s().map(Iterator::collect);
                Some(elements.map_or(estimate, |elements| estimate.with_norm_of(&elements)))
            });
            (output.name.as_str(), distance)
        });
        self.judge(distances.collect(), honest_factor(found.probes.max(1), REFUSED), is_far)
    }

    /// From how far outputs are off whose true values are finite. Where they are not, nobody
    /// can say how far off a result is, and `is_far` says whether one had finite ones.
    fn judge(
        &self,
        distances: Vec<(&str, Option<Distance>)>,
        factor: f64,
        is_far: bool,
    ) -> Weighed {
        let is_within = |tolerance: Tolerance, distance: &Option<Distance>| {
            distance.as_ref().is_some_and(|found| tolerance.accepts_estimate(found, factor))
        };
        let are_within = |tolerance: fn(&Self, &str) -> Tolerance| {
            distances.iter().all(|(name, distance)| is_within(tolerance(self, name), distance))
        };
        let mut lies = distances.iter();
        let lie = lies.find(|(name, distance)| !is_within(self.possible(name), distance));
        let finding = lie.map(|(name, distance)| {
            let away = distance.as_ref().map_or(f64::NAN, Distance::relative);
            let possible = self.possible(name).relative;
            format!(
                "output {name:?} of a GPU is {away:.3e} of its norm away, no honest one is by more than {possible:.2}"
            )
        });
        let agreement = match &finding {
            Some(_) => Agreement::False,
            None if is_far => Agreement::Far,
            None if are_within(Self::tolerance) => Agreement::Agrees,
            None if are_within(Self::widest) => Agreement::Doubtful,
            None => Agreement::Far,
        };
        Weighed { agreement, finding, observed: Vec::new() }
    }
}

/// Whether a tensor has finite elements only; so has one that is not there.
fn is_finite(tensor: Option<&Tensor>) -> bool {
    let elements = tensor.and_then(Tensor::as_f32s);
    elements.is_none_or(|mut elements| elements.all(f32::is_finite))
}

/// How far a tensor is from the true one; `None` where that cannot be said.
fn distance(truth: &Tensor, claimed: &Tensor) -> Option<Distance> {
    match (truth.as_f32s(), claimed.as_f32s()) {
        (Some(truth), Some(claimed)) => {
            let (truth, claimed): (Vec<f32>, Vec<f32>) = (truth.collect(), claimed.collect());
            Distance::between(&truth, &claimed).ok()
        }
        _ => (truth.data == claimed.data).then_some(Distance { difference: 0.0, norm: 1.0 }),
    }
}

/// What a job knows of its GPUs: how far their honest results are off, and
/// projections of those that are not settled.
#[derive(Debug, Default)]
pub struct Relaxed {
    calibrations: BTreeMap<String, Calibration>,
    /// With their rounds.
    sketches: BTreeMap<LeaseId, (u32, Arc<Sketch>)>,
    newest_round: u32,
}

impl Relaxed {
    /// Learns from what the referee observed of a contributor's result.
    pub fn observe(
        &mut self,
        contributor: &ContributorId,
        vetted: bool,
        observed: &[(String, f64)],
    ) {
        // Keys are spread evenly; that two begin alike takes as many of them.
        let mut source = [0; 8];
        source.copy_from_slice(&contributor.0[..8]);
        for (name, relative) in observed {
            let calibration = self.calibrations.entry(name.clone());
            let calibration =
                calibration.or_insert_with(|| Calibration::new(CalibrationRule::default()));
            calibration.observe(u64::from_le_bytes(source), *relative, vetted);
        }
    }

    /// The present bounds.
    pub fn bounds(&self, hits: &str) -> Bounds {
        let relative = self.calibrations.iter().map(|(name, it)| (name.clone(), it.relative()));
        Bounds { relative: relative.collect(), ..Bounds::initial(hits) }
    }

    /// Nothing of what is kept will be looked at again.
    pub fn settled(&mut self) {
        self.sketches.clear();
    }

    /// Keeps projections until their round cannot be undone any more. The engine settles
    /// its rounds before they take too much.
    pub fn keep(&mut self, lease: LeaseId, round: u32, sketch: Arc<Sketch>) {
        if round > self.newest_round {
            self.newest_round = round;
            let rounds_max = EngineConfig::default().unsettled_rounds_max as u32;
            self.sketches.retain(|_, (kept, _)| *kept + rounds_max >= round);
        }
        self.sketches.insert(lease, (round, sketch));
    }

    /// The job goes back to `round`: what follows takes the place of what was kept, as
    /// soon as it is as old as that.
    pub fn went_back(&mut self, round: u32) {
        self.newest_round = self.newest_round.min(round);
        for (kept, _) in self.sketches.values_mut() {
            *kept = (*kept).min(round);
        }
    }

    /// What was kept under a lease.
    pub fn sketch(&self, lease: LeaseId) -> Option<Arc<Sketch>> {
        self.sketches.get(&lease).map(|(_, sketch)| sketch.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::leases::ExpectedOutput;
    use raven_protocol::frame::encode;
    use raven_protocol::{Encoding, FrameLimits, FromContributor, TensorPart};

    fn expected() -> Expected {
        let output = |name: &str, dims: &[u32]| ExpectedOutput {
            name: name.into(),
            encoding: Encoding::Raw,
            ty: TensorType::new(DType::F32, dims),
        };
        Expected { outputs: vec![output("grad.w", &[1000]), output("correct", &[])] }
    }

    fn values(times: f32, hits: f32) -> Values {
        let number = |e: u32| ((e * 37) % 101) as f32 - 50.0;
        let data: Vec<u8> = (0..1000).flat_map(|e| (number(e) * times).to_le_bytes()).collect();
        let gradient = Tensor { ty: TensorType::new(DType::F32, [1000]), data: data.into() };
        Values::from([("grad.w".into(), gradient), ("correct".into(), Tensor::scalar(hits))])
    }

    #[test]
    fn what_is_settled_is_not_kept() {
        let (expected, mut relaxed) = (expected(), Relaxed::default());
        let sketch = Arc::new(Sketch::of(&expected, Seed(5), 32, &values(1.0, 20.0)));
        assert_eq!(sketch.bytes(), 2 * 32 * 8, "two outputs");
        relaxed.keep(LeaseId(1), 0, sketch.clone());
        assert!(relaxed.sketch(LeaseId(1)).is_some());
        relaxed.settled();
        relaxed.keep(LeaseId(2), 1, sketch);
        assert!(relaxed.sketch(LeaseId(1)).is_none() && relaxed.sketch(LeaseId(2)).is_some());
    }

    #[test]
    fn results_agree_within_bounds_and_a_hit_may_be_one_off() {
        let (expected, bounds) = (expected(), Bounds::initial("correct"));
        let truth = values(1.0, 20.0);
        let by_values = |found: &Values| bounds.weigh(&expected, &truth, found).agreement;
        let weigh = |found: &Values| {
            let by_sketch =
                bounds.weigh_sketch(&expected, &truth, &Sketch::of(&expected, Seed(5), 32, found));
            assert_eq!(by_values(found), by_sketch.agreement);
            by_sketch.agreement
        };
        assert_eq!(weigh(&truth), Agreement::Agrees);
        assert_eq!(weigh(&values(1.000_01, 21.0)), Agreement::Agrees);
        assert_eq!(weigh(&values(1.01, 20.0)), Agreement::Doubtful);
        for kink in [values(1.0, 25.0), values(1.1, 20.0), values(0.6, 20.0), values(1.4, 20.0)] {
            assert_eq!(by_values(&kink), Agreement::Far);
        }
        let linear = bounds.clone().linear();
        let off = values(1.1, 20.0);
        assert_eq!(linear.weigh(&expected, &truth, &off).agreement, Agreement::False, "no kinks");
        for lie in [-1.0, 0.0, 1.5, f32::NAN] {
            assert_eq!(by_values(&values(lie, 20.0)), Agreement::False, "{lie}");
            let [one, other] = [&truth, &values(lie, 20.0)]
                .map(|values| Sketch::of(&expected, Seed(9), 32, values));
            assert!(!bounds.agree(&expected, &one, &other), "{lie}");
            assert!(bounds.agree(&expected, &one, &one));
        }
    }

    /// A job whose loss runs away comes to values that are not finite, on every honest device.
    #[test]
    fn nobody_has_lied_where_the_truth_is_not_finite() {
        let (expected, bounds) = (expected(), Bounds::initial("correct"));
        let weigh = |truth: &Values, found: &Values| {
            let by_values = bounds.weigh(&expected, truth, found);
            let sketch = Sketch::of(&expected, Seed(5), 32, found);
            let by_sketch = bounds.weigh_sketch(&expected, truth, &sketch);
            assert_eq!(by_values.agreement, by_sketch.agreement);
            by_values.agreement
        };
        for beyond in [f32::NAN, f32::INFINITY] {
            let truth = values(beyond, 20.0);
            assert_eq!(weigh(&truth, &truth), Agreement::Agrees);
            assert_eq!(weigh(&truth, &values(f32::NEG_INFINITY, 20.0)), Agreement::Agrees);
            assert_eq!(weigh(&truth, &values(1.0, 20.0)), Agreement::Far, "whose truth is better");
            assert_eq!(weigh(&truth, &values(1.0, f32::NAN)), Agreement::False, "a finite count");
        }
    }

    #[test]
    fn bounds_narrow_with_what_the_referee_saw_of_several() {
        let mut relaxed = Relaxed::default();
        let found = values(1.000_3, 20.0);
        let agreement = |relaxed: &Relaxed| {
            let bounds = relaxed.bounds("correct");
            bounds.weigh(&expected(), &values(1.0, 20.0), &found).agreement
        };
        assert_eq!(agreement(&relaxed), Agreement::Agrees);
        for number in 0..3 {
            for _ in 0..4 {
                let observed = [("grad.w".to_owned(), 1e-6)];
                relaxed.observe(&ContributorId([number; 32]), true, &observed);
            }
        }
        assert_eq!(agreement(&relaxed), Agreement::Doubtful);
    }

    #[test]
    fn projections_are_read_as_they_were_asked_for_or_not_at_all() {
        let (expected, values) = (expected(), values(1.0, 20.0));
        let (key, probes) = (Seed(7), 4);
        let ours = Sketch::of(&expected, key, probes, &values);
        let frame = |name: &str, probes: u32| {
            let ty = TensorType::new(DType::U8, [probes, 8]);
            let data: Vec<Vec<u8>> = ours
                .outputs
                .iter()
                .map(|output| to_bytes(&output[..probes.min(4) as usize]))
                .collect();
            let part = |name: &str, data| TensorPart { name: name.into(), ty: ty.clone(), data };
            let parts = [part(name, &data[0][..]), part("correct", &data[1][..])];
            encode(&FromContributor::Projected { lease: LeaseId(1) }, &parts)
        };
        let read = |bytes: &[u8]| {
            let frame = Frame::decode(bytes, &FrameLimits::TO_COORDINATOR).expect("a frame");
            Sketch::read(&expected, key, probes, &frame)
        };
        let found = read(&frame("grad.w", 4)).expect("as asked for");
        assert!(found.is_of(&expected, &values));
        assert!(!found.is_of(&expected, &super::tests::values(1.000_001, 20.0)));
        assert!(matches!(read(&frame("grad.b", 4)), Err(ResultError::Name { index: 0, .. })));
        assert!(matches!(read(&frame("grad.w", 3)), Err(ResultError::Type { index: 0, .. })));
    }

    #[test]
    fn sketches_go_once_their_rounds_are_settled() {
        let mut relaxed = Relaxed::default();
        let sketch = Arc::new(Sketch::of(&expected(), Seed(5), 32, &values(1.0, 1.0)));
        for round in 0..200 {
            relaxed.keep(LeaseId(round.into()), round, sketch.clone());
        }
        assert!(relaxed.sketches.len() <= 65 && relaxed.sketch(LeaseId(199)).is_some());
    }
}
