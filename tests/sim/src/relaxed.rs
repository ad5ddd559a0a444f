//! Results of GPUs: small vectors, so that there are distances between them. What
//! is combined of them is the truth all the same, and how far each was off is kept
//! beside it: a job comes to the bits of an honest one, and to an influence.

use crate::adversary::Lie;
use crate::kernel::{Value, digest_of, mix};
use crate::rng::Rng;
use raven_engine::Agreement;
use raven_proof::normwise::{CalibrationRule, Distance, Tolerance, honest_factor};
use raven_proof::{Calibration, project};
use raven_protocol::{ResultDigest, Seed, TaskId};

/// Elements of a tensor.
const ELEMENTS: usize = 32;
/// Of a honest result's elements, relative.
const ROUNDING: f64 = 1e-6;
/// What probes of a product take for round-off.
pub(crate) const PROBED_OFF: f64 = 2.0 * ROUNDING;
/// One in so many honest results is at a kink, where it is off by as much as this, and
/// one at one of a narrow layer.
const KINK_ONE_IN: u64 = 200;
const KINK: f64 = 0.01;
const NARROW_ONE_IN: u64 = 1_000;
const NARROW_KINK: f64 = 0.35;
/// Honest results that do not agree by their estimates.
const REFUSED: f64 = 1e-9;

/// A tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector([f32; ELEMENTS]);

impl Vector {
    /// What stands for `value` on a processor.
    pub fn of(value: Value) -> Self {
        let sign = |at: usize| if value >> at & 1 == 0 { 1.0 } else { -1.0 };
        Vector(std::array::from_fn(|at| sign(at) * (1.0 + at as f32 / 32.0)))
    }

    fn times(self, by: f32) -> Self {
        Vector(self.0.map(|x| x * by))
    }

    /// Moved by a part of its norm in a direction of signs.
    fn moved(self, by: f64, direction: u64) -> Self {
        let each = (by * self.norm() / (ELEMENTS as f64).sqrt()) as f32;
        let Vector(mut elements) = self;
        for (at, x) in elements.iter_mut().enumerate() {
            *x += if direction >> at & 1 == 0 { each } else { -each };
        }
        Vector(elements)
    }

    fn norm(&self) -> f64 {
        self.0.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
    }

    /// What an honest GPU comes to.
    pub fn rounded(self, is_linear: bool, rng: &mut Rng) -> Self {
        let mut kink = if rng.below(KINK_ONE_IN) == 0 { KINK * rng.unit() } else { 0.0 };
        if !is_linear && rng.below(NARROW_ONE_IN) == 0 {
            kink += NARROW_KINK * rng.unit();
        }
        self.moved(ROUNDING * (0.5 + rng.unit()) + kink, rng.word())
    }

    /// What a cheat says instead of `truth`.
    pub fn lie(lie: Lie, truth: Value, before: Value, rng: &mut Rng) -> Self {
        let honest = Vector::of(truth);
        match lie {
            Lie::Noise => Vector::of(rng.word()),
            Lie::Flipped | Lie::Feigned => honest.times(-1.0),
            Lie::Scaled => honest.times(2.0),
            Lie::Zero => honest.times(0.0),
            Lie::Stale => Vector::of(before),
            Lie::Colluding { group } => Vector::of(mix(truth, group)),
            Lie::Within => honest.moved(0.019, 0x5555_5555_5555_5555),
            Lie::Kinked => honest.moved(0.4, 0x5555_5555_5555_5555),
            Lie::Withheld | Lie::Invalid => honest.rounded(true, rng),
        }
    }

    /// How far it is from `truth`, in norms of that.
    pub fn off(&self, truth: Value) -> f64 {
        let truth = Vector::of(truth);
        let distance = Distance::between(&truth.0, &self.0).expect("vectors are of one length");
        distance.relative()
    }

    pub fn digest(&self, task: TaskId) -> ResultDigest {
        let elements = self.0.iter().map(|x| u64::from(x.to_bits()));
        digest_of(task, elements.fold(1, mix))
    }

    pub fn project(&self, key: Seed, probes: u32) -> Vec<f64> {
        project(key.0, 0, probes, &self.0)
    }
}

/// What the shell makes of results of GPUs.
#[derive(Clone, Debug)]
pub struct Bounds {
    calibration: Calibration,
    /// Whether tasks are one product or one convolution: those have no kinks.
    pub is_linear: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { calibration: Calibration::new(CalibrationRule::default()), is_linear: false }
    }
}

impl Bounds {
    pub fn relative(&self) -> f64 {
        self.calibration.relative()
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance { relative: self.relative(), absolute: 1e-6 }
    }

    /// Whether two that were projected agree.
    pub fn agree(&self, one: &[f64], other: &[f64]) -> bool {
        let factor = honest_factor(one.len().max(1) as u32, REFUSED);
        self.tolerance().agree(one, other, factor)
    }

    /// What the referee says of a result of which there are projections, whose `truth`
    /// it is.
    pub fn judge_sketch(&self, key: Seed, found: &[f64], truth: Value) -> Agreement {
        let probes = found.len() as u32;
        let honest = Vector::of(truth);
        let distance = Distance::estimated(&honest.project(key, probes), found);
        let distance = Distance { norm: honest.norm(), ..distance.expect("as many as asked for") };
        let factor = honest_factor(probes, REFUSED);
        self.weigh(&distance, factor)
    }

    /// What the referee says, whose `truth` it is; it learns from that.
    pub fn judge(&mut self, source: u64, vetted: bool, found: &Vector, truth: Value) -> Agreement {
        let off = found.off(truth);
        let agreement = self.weigh(&Distance { difference: off, norm: 1.0 }, 1.0);
        self.calibration.observe(source, off, vetted);
        agreement
    }

    fn weigh(&self, distance: &Distance, factor: f64) -> Agreement {
        let CalibrationRule { ceiling, proven, .. } = CalibrationRule::default();
        let within = |relative: f64| {
            Tolerance { relative, absolute: 1e-6 }.accepts_estimate(distance, factor)
        };
        match () {
            () if within(self.relative()) => Agreement::Agrees,
            () if within(ceiling) => Agreement::Doubtful,
            () if !self.is_linear && within(proven) => Agreement::Far,
            () => Agreement::False,
        }
    }
}
