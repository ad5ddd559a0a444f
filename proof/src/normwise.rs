//! Comparison of results that honest devices do not agree on bit for bit.
//!
//! A tensor is accepted where it differs from the reference by at most a small
//! part of the reference's 2-norm. **This bounds what a contributor can do to a
//! result; it does not make the results equal.** Whoever stays within the
//! tolerance may choose the difference, round after round: the guarantee is
//! bounded influence. Where equality is needed a job is strict.
//!
//! Norms are compared and not elements, because a rounding may move a tie in a
//! ReLU or in max pooling to the other side, and honest gradients then differ
//! in single elements by as much as these are large.

use std::collections::VecDeque;

/// How far a tensor is from the reference, in 2-norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Of the difference.
    pub difference: f64,
    /// Of the reference.
    pub norm: f64,
}

/// Tensors, or projections of them, that cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    #[error("{found} elements beside {expected}")]
    Length { expected: usize, found: usize },
    #[error("an estimate takes at least one projection")]
    NoProjections,
}

impl Distance {
    /// Of two payloads at hand, exact up to rounding in f64.
    ///
    /// # Errors
    /// [`CompareError::Length`].
    pub fn between(reference: &[f32], found: &[f32]) -> Result<Self, CompareError> {
        same_length(reference.len(), found.len())?;
        let pairs = reference.iter().zip(found);
        let squares = pairs.map(|(&reference, &found)| {
            let (reference, found) = (f64::from(reference), f64::from(found));
            ((reference - found) * (reference - found), reference * reference)
        });
        Ok(Distance::of_squares(squares, 1.0))
    }

    /// Estimated from projections of both under one seed (see [`crate::project`]): the root of
    /// their mean square, which on average is the square of the norm. Compare it by
    /// [`Tolerance::accepts_estimate`].
    ///
    /// # Errors
    /// [`CompareError`].
    pub fn estimated(reference: &[f64], found: &[f64]) -> Result<Self, CompareError> {
        same_length(reference.len(), found.len())?;
        if reference.is_empty() {
            return Err(CompareError::NoProjections);
        }
        let pairs = reference.iter().zip(found);
        let squares = pairs.map(|(reference, found)| {
            ((reference - found) * (reference - found), reference * reference)
        });
        Ok(Distance::of_squares(squares, reference.len() as f64))
    }

    /// The same with the reference's exact norm, where its payload is at hand.
    #[must_use]
    pub fn with_norm_of(self, reference: &[f32]) -> Self {
        let square: f64 = reference.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        Distance { norm: square.sqrt(), ..self }
    }

    fn of_squares(squares: impl Iterator<Item = (f64, f64)>, count: f64) -> Self {
        let add = |sum: (f64, f64), square: (f64, f64)| (sum.0 + square.0, sum.1 + square.1);
        let (difference, norm) = squares.fold((0.0, 0.0), add);
        Distance { difference: (difference / count).sqrt(), norm: (norm / count).sqrt() }
    }

    /// The difference as a part of the norm; 0 where there is none, infinite where there is one
    /// and no norm, NaN where an element is not finite.
    pub fn relative(&self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { self.difference / self.norm }
    }
}

fn same_length(expected: usize, found: usize) -> Result<(), CompareError> {
    if expected == found { Ok(()) } else { Err(CompareError::Length { expected, found }) }
}

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Part of the reference's norm, as a [`Calibration`] gives it.
    pub relative: f64,
    /// Norm of a difference that is always accepted: a gradient of nearly zero is rounding only.
    pub absolute: f64,
}

impl Tolerance {
    /// Whether a tensor at that distance is accepted: its difference is at most
    /// `max(relative * norm, absolute)`. Never where an element is not finite.
    pub fn accepts(&self, distance: &Distance) -> bool {
        self.accepts_estimate(distance, 1.0)
    }

    /// The same for a distance that is estimated from projections, with the factor that
    /// [`honest_factor`] gives for their number.
    pub fn accepts_estimate(&self, distance: &Distance, factor: f64) -> bool {
        let accepted = (self.relative * distance.norm).max(self.absolute) * factor;
        distance.norm.is_finite() && distance.difference <= accepted
    }
}

impl Tolerance {
    /// Whether two results agree by their projections under one seed, neither of them being a
    /// reference: their difference is within what is accepted of either. `factor` is that of
    /// [`honest_factor`].
    pub fn agree(&self, one: &[f64], other: &[f64], factor: f64) -> bool {
        [(one, other), (other, one)].into_iter().all(|(one, other)| {
            let distance = Distance::estimated(one, other);
            distance.is_ok_and(|distance| self.accepts_estimate(&distance, factor))
        })
    }
}

/// By how much an estimate of `projections` projections exceeds the true distance, at most, except
/// with probability `refused`: the factor with which an honest result is refused no more often.
///
/// The moments of projections by random signs are at most those of normal ones (D. Achlioptas,
/// "Database-friendly random projections", JCSS 66, 2003), so that the mean of `k` squares exceeds
/// `f^2` times its expectation with probability `(f^2 exp(1 - f^2))^(k/2)` at most.
///
/// # Panics
/// Where there is no projection or `refused` is not in (0, 1): a mistake of the caller.
pub fn honest_factor(projections: u32, refused: f64) -> f64 {
    assert!(projections > 0 && refused > 0.0 && refused < 1.0, "a chance of a number of probes");
    let wanted = -2.0 * refused.ln() / f64::from(projections);
    // The left side of f^2 - 1 - ln f^2 = wanted rises from 0 at f^2 = 1.
    let (mut low, mut high) = (1.0, 2.0 * wanted + 4.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if middle - 1.0 - f64::ln(middle) < wanted { low = middle } else { high = middle }
    }
    f64::sqrt(high)
}

/// The probability, at most, that a result is accepted whose distance is `times` what is accepted
/// (tolerance and factor together), whatever the difference is and as long as it was chosen before
/// the seed.
///
/// Of a sum of random signs the fourth moment is at most three times the square of the second, so
/// that `E exp(-h p^2) <= 1 - h + 3 h^2 / 2` for `p` of unit mean square; the bound is the least
/// over `h`. A difference in two equal elements shows in every second projection only, so that no
/// bound can be below `2^-k`.
pub fn accepted_wrongly(projections: u32, times: f64) -> f64 {
    let chance = |h: f64| (1.0 - h + 1.5 * h * h) * (h / (times * times)).exp();
    let least = (0..=64).map(|step| chance(f64::from(step) / 128.0)).fold(1.0, f64::min);
    least.powf(f64::from(projections))
}

/// How a [`Calibration`] comes to its tolerance: a factor times the median over sources of each
/// source's own median. While fewer than half of the sources are liars it lies among honest
/// distances, however much more often liars are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationRule {
    /// Never below: honest results may differ by this for reasons that canaries did not show.
    pub floor: f64,
    /// Never above, whatever was observed: this is what a contributor's influence is bounded by.
    pub ceiling: f64,
    /// Only beyond this a result is proven false: below it a ReLU or a tie in max pooling that a
    /// rounding moved to the other side of a narrow layer explains it. Turned signs (2), noise, zeros
    /// (1) and whatever is scaled by 1.5 (0.5) or more are beyond.
    pub proven: f64,
    /// How many times the median is accepted.
    pub factor: f64,
    /// Until enough was observed: far above rounding, far below the ceiling.
    pub initial: f64,
    /// Below as many sources `initial` holds.
    pub sources_min: usize,
    /// Below as many sources it is not exceeded: the first ones may all be one liar.
    pub sources_many: usize,
    /// The latest sources that are kept.
    pub sources_max: usize,
    /// The latest distances that are kept of one source.
    pub of_a_source_max: usize,
}

impl Default for CalibrationRule {
    fn default() -> Self {
        CalibrationRule {
            floor: 1e-5,
            ceiling: 0.02,
            proven: 0.45,
            factor: 32.0,
            initial: 1e-3,
            sources_min: 3,
            sources_many: 12,
            sources_max: 256,
            of_a_source_max: 8,
        }
    }
}

/// Learns from strict canaries (tasks that the coordinator's own module computed too) how far
/// honest results of GPUs are from the processor's.
#[derive(Clone, Debug)]
pub struct Calibration {
    rule: CalibrationRule,
    /// The one that was observed last at the end.
    observed: VecDeque<Source>,
    outliers: u64,
}

/// Whose distances were observed.
#[derive(Clone, Debug)]
struct Source {
    number: u64,
    /// Oldest first.
    distances: VecDeque<f64>,
    /// Whether it was vetted at some time: of others nothing is learnt, since keys cost nothing.
    vetted: bool,
}

impl Calibration {
    /// One that has seen nothing.
    pub fn new(rule: CalibrationRule) -> Self {
        Calibration { rule, observed: VecDeque::new(), outliers: 0 }
    }

    /// Takes the relative distance of one canary's tensor, by the number of its source, and whether
    /// that is vetted now. One above the ceiling is counted and not learnt from: it would be refused
    /// in any case, and a liar must not widen what is accepted. False for such a one. What was taken
    /// of a source before it was vetted counts from then on.
    pub fn observe(&mut self, source: u64, relative: f64, vetted: bool) -> bool {
        if !(0.0..=self.rule.ceiling).contains(&relative) {
            self.outliers += 1;
            return false;
        }
        let at = self.observed.iter().position(|other| other.number == source);
        let known = at.and_then(|at| self.observed.remove(at));
        let new = Source { number: source, distances: VecDeque::new(), vetted: false };
        let mut of = known.unwrap_or(new);
        if of.distances.len() >= self.rule.of_a_source_max {
            of.distances.pop_front();
        }
        of.distances.push_back(relative);
        of.vetted |= vetted;
        if self.observed.len() >= self.rule.sources_max {
            // However many strangers come, they push out nobody who is vetted.
            let stranger = self.observed.iter().position(|other| !other.vetted);
            match stranger {
                None if !of.vetted => return true,
                at => drop(self.observed.remove(at.unwrap_or(0))),
            }
        }
        self.observed.push_back(of);
        true
    }

    fn vetted(&self) -> impl Iterator<Item = &Source> {
        self.observed.iter().filter(|source| source.vetted)
    }

    /// The relative tolerance, by the rule.
    pub fn relative(&self) -> f64 {
        let CalibrationRule { floor, ceiling, factor, initial, sources_min, sources_many, .. } =
            self.rule;
        let sources = self.sources();
        if sources < sources_min.max(1) {
            return initial;
        }
        let own = self.vetted().map(|source| median(source.distances.iter().copied()));
        let most = if sources < sources_many { initial } else { ceiling };
        (factor * median(own)).max(floor).min(most)
    }

    /// Vetted sources that were learnt from and are kept.
    pub fn sources(&self) -> usize {
        self.vetted().count()
    }

    /// Distances above the ceiling, or none at all, since the beginning.
    pub fn outliers(&self) -> u64 {
        self.outliers
    }
}

/// The lower of the two in the middle; 0 of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project;

    #[test]
    fn distances_are_norms() {
        let distance = Distance::between(&[3.0, 4.0], &[3.0, 4.5]).expect("compared");
        assert_eq!(distance, Distance { difference: 0.5, norm: 5.0 });
        assert_eq!(distance.relative(), 0.1);
        let length = CompareError::Length { expected: 2, found: 1 };
        assert_eq!(Distance::between(&[0.0; 2], &[0.0]), Err(length));
        assert_eq!(Distance::estimated(&[], &[]), Err(CompareError::NoProjections));
    }

    #[test]
    fn tolerances_have_a_floor_and_take_nothing_that_is_not_finite() {
        let tolerance = Tolerance { relative: 0.01, absolute: 1e-6 };
        let accepts = |reference: &[f32], found: &[f32]| {
            tolerance.accepts(&Distance::between(reference, found).expect("compared"))
        };
        assert!(accepts(&[100.0, 0.0], &[100.0, 1.0]));
        assert!(!accepts(&[100.0, 0.0], &[100.0, 1.01]));
        // Nearly nothing beside nothing.
        assert!(accepts(&[0.0; 4], &[4e-7, 0.0, 0.0, -4e-7]));
        assert!(!accepts(&[0.0; 4], &[2e-6, 0.0, 0.0, 0.0]));
        for odd in [f32::NAN, f32::INFINITY] {
            assert!(!accepts(&[1.0, 1.0], &[1.0, odd]), "{odd}");
            assert!(!accepts(&[1.0, odd], &[1.0, odd]), "{odd}");
        }
    }

    #[test]
    fn agreement_is_mutual_and_nobody_gains_by_being_large() {
        let tolerance = Tolerance { relative: 0.02, absolute: 0.0 };
        let truth: Vec<f32> = (0..2000).map(|e| ((e * 31) % 97) as f32 - 48.0).collect();
        let times = |by: f32| truth.iter().map(|x| x * by).collect::<Vec<f32>>();
        let project = |x: &[f32]| project(5, 0, 32, x);
        let factor = honest_factor(32, 1e-9);
        let agree = |by: f32| {
            let (one, other) = (project(&truth), project(&times(by)));
            let both = [(&one, &other), (&other, &one)];
            let [first, second] = both.map(|(a, b)| tolerance.agree(a, b, factor));
            assert_eq!(first, second);
            first
        };
        assert!(agree(1.0) && agree(1.01));
        for lie in [0.0, 0.9, 1.1, 2.0, -1.0, 1e6, f32::NAN, f32::INFINITY] {
            assert!(!agree(lie), "{lie}");
        }
        assert!(!tolerance.agree(&[1.0], &[1.0, 1.0], factor));
    }

    #[test]
    fn estimates_are_within_their_factor_and_find_what_is_far_off() {
        let reference: Vec<f32> = (0..2000).map(|e| ((e * 31) % 97) as f32 - 48.0).collect();
        let tolerance = Tolerance { relative: 1e-3, absolute: 0.0 };
        let norm = Distance::between(&reference, &reference).expect("compared").norm;
        let factor = honest_factor(16, 1e-9);
        assert!((2.0..2.6).contains(&factor), "{factor}");
        let mut missed = 0;
        for seed in 0..500u64 {
            let moved = |by: f64| {
                let mut found = reference.clone();
                let each = (by / (found.len() as f64).sqrt()) as f32;
                found.iter_mut().enumerate().for_each(|(e, x)| {
                    *x += if (e as u64 * 7 + seed).is_multiple_of(3) { -each } else { each };
                });
                let (ours, theirs) =
                    (project(seed, 0, 16, &reference), project(seed, 0, 16, &found));
                let distance = Distance::estimated(&ours, &theirs).expect("compared");
                tolerance.accepts_estimate(&distance.with_norm_of(&reference), factor)
            };
            assert!(moved(1e-3 * norm), "an honest result was refused with seed {seed}");
            missed += u32::from(moved(3.0 * factor * 1e-3 * norm));
        }
        assert_eq!(missed, 0);
        assert!(accepted_wrongly(64, 3.0) < 1e-3 && accepted_wrongly(16, 0.5) == 1.0);
    }

    #[test]
    fn a_calibration_stays_between_its_bounds_whatever_it_is_told() {
        let rule = CalibrationRule { sources_max: 100, ..Default::default() };
        let mut calibration = Calibration::new(rule);
        assert_eq!(calibration.relative(), rule.initial);
        // A few may narrow it and not widen it.
        (0..11).for_each(|source| assert!(calibration.observe(source, 0.02, true)));
        assert_eq!(calibration.relative(), rule.initial);
        (0..11).for_each(|source| {
            (0..9).for_each(|_| assert!(calibration.observe(source, 1e-6, true)))
        });
        assert_eq!(calibration.relative(), 32.0 * 1e-6);
        for wild in [0.5, f64::INFINITY, f64::NAN, -1.0] {
            assert!(!calibration.observe(7, wild, true));
        }
        assert_eq!((calibration.relative(), calibration.outliers()), (32.0 * 1e-6, 4));
        // Many liars below the ceiling get no further than it.
        (100..300).for_each(|source| assert!(calibration.observe(source, 0.02, true)));
        assert_eq!((calibration.relative(), calibration.sources()), (rule.ceiling, 100));
        (100..300).for_each(|source| assert!(calibration.observe(source + 200, 0.0, true)));
        assert_eq!(calibration.relative(), rule.floor);
    }

    #[test]
    fn a_minority_that_stays_just_inside_does_not_widen_what_is_accepted() {
        let mut calibration = Calibration::new(CalibrationRule::default());
        // Of twenty sources eight keep to whatever is accepted, and are looked at far more often.
        for round in 0..50u64 {
            for source in 0..20u64 {
                let accepted = calibration.relative();
                let distance = if source < 8 {
                    accepted
                } else {
                    1e-6 + ((round + source) % 10) as f64 * 1e-7
                };
                let times = if source < 8 { 20 } else { 1 };
                (0..times).for_each(|_| assert!(calibration.observe(source, distance, true)));
            }
        }
        assert!(calibration.relative() <= 32.0 * 1.9e-6, "{}", calibration.relative());
        // One alone calibrates nothing.
        let mut alone = Calibration::new(CalibrationRule::default());
        (0..1_000).for_each(|_| assert!(alone.observe(1, 1e-7, true)));
        assert_eq!((alone.sources(), alone.relative()), (1, 1e-3));
    }

    #[test]
    fn strangers_calibrate_nothing_and_push_out_nobody() {
        let rule = CalibrationRule { sources_max: 50, ..CalibrationRule::default() };
        let mut calibration = Calibration::new(rule);
        (0..20).for_each(|source| assert!(calibration.observe(source, 1e-6, true)));
        let before = calibration.relative();
        assert_eq!(before, 32.0 * 1e-6);
        (100..1_000).for_each(|source| assert!(calibration.observe(source, 0.019, false)));
        assert_eq!((calibration.relative(), calibration.sources()), (before, 20));
        // Whoever is vetted in the end has calibrated from the start.
        let mut one = Calibration::new(CalibrationRule::default());
        for source in 0..3 {
            (0..4).for_each(|_| assert!(one.observe(source, 1e-6, false)));
            assert_eq!(one.relative(), one.rule.initial);
        }
        (0..3).for_each(|source| assert!(one.observe(source, 1e-6, true)));
        assert_eq!(one.relative(), 32.0 * 1e-6);
    }
}
