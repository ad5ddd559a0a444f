//! How a share of the machine becomes workers and rests between steps.

use super::ContributeError;
use std::time::Duration;

/// Rest shorter than this is saved up: timers are not more exact.
const REST_MIN: Duration = Duration::from_millis(1);
/// Longest single rest, so that orders are obeyed soon.
const REST_MAX: Duration = Duration::from_secs(2);
/// Idle time beyond this earns no right to a burst of work.
const CREDIT_S_MAX: f64 = 0.05;
/// Duty below which a worker would do nothing in a lease's time.
const DUTY_MIN: f64 = 0.01;
/// As many workers as a session may have.
const WORKERS_MAX: f64 = 256.0;

/// A share, spread over workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Of all cores, as the coordinator is told.
    pub(super) share: f64,
    /// Workers that compute at once.
    pub(super) workers: u32,
    /// Part of the time that each of them computes, in (0, 1].
    pub(super) duty: f64,
}

impl Pace {
    /// The fewest workers that can give `share` of `cores`, or as many as were asked
    /// for; more than their whole time they cannot give, so that fewer give less. Of
    /// those that would have less than the least duty each there are fewer: the share
    /// is kept whatever was asked for.
    ///
    /// # Errors
    /// [`ContributeError::Share`] where it is too little for one worker.
    pub(super) fn of(
        share: f64,
        cores: u32,
        workers: Option<u32>,
    ) -> Result<Self, ContributeError> {
        let cores = f64::from(cores.max(1));
        let wanted = share * cores;
        // Without the epsilon 0.07 × 100 would ask for eight workers instead of seven.
        let most = (wanted / DUTY_MIN + 1e-9).floor().min(WORKERS_MAX) as u32;
        if most == 0 {
            return Err(ContributeError::Share { share, least: DUTY_MIN / cores });
        }
        let fewest = (wanted - 1e-9).ceil().clamp(1.0, WORKERS_MAX) as u32;
        let workers = workers.unwrap_or(fewest).clamp(1, most);
        let duty = (wanted / f64::from(workers)).min(1.0);
        let share = (duty * f64::from(workers) / cores).min(share);
        Ok(Pace { share, workers, duty })
    }
}

/// Keeps a duty cycle: after work comes the rest that it asks for.
#[derive(Debug)]
pub(super) struct Pacer {
    rest_per_work: f64,
    /// Seconds of rest that are due; below zero where more was rested than due.
    owed_s: f64,
}

impl Pacer {
    pub(super) fn new(duty: f64) -> Self {
        let duty = duty.clamp(DUTY_MIN, 1.0);
        Pacer { rest_per_work: (1.0 - duty) / duty, owed_s: 0.0 }
    }

    pub(super) fn worked(&mut self, time: Duration) {
        self.owed_s += time.as_secs_f64() * self.rest_per_work;
    }

    /// Counts time that was not worked, slept on purpose or spent waiting.
    pub(super) fn rested(&mut self, time: Duration) {
        self.owed_s = (self.owed_s - time.as_secs_f64()).max(-CREDIT_S_MAX);
    }

    /// Time to sleep now; zero where no rest is due yet.
    pub(super) fn due(&self) -> Duration {
        if self.owed_s < REST_MIN.as_secs_f64() {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.owed_s.min(REST_MAX.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_the_fewest_workers() {
        let of = |share, cores, workers| {
            let pace = Pace::of(share, cores, workers).expect("enough for one");
            (pace.workers, (pace.duty * 1000.0).round(), (pace.share * 1000.0).round())
        };
        assert_eq!(of(0.5, 4, None), (2, 1000.0, 500.0));
        assert_eq!(of(0.05, 4, None), (1, 200.0, 50.0));
        assert_eq!(of(0.07, 100, None), (7, 1000.0, 70.0));
        assert_eq!(of(1.0, 1, None), (1, 1000.0, 1000.0));
        // As many as were asked for share it; one alone cannot give two cores' time.
        assert_eq!(of(0.5, 4, Some(4)), (4, 500.0, 500.0));
        assert_eq!(of(1.0, 2, Some(1)), (1, 1000.0, 500.0));
        // A tenth of a core is enough for ten workers of the least duty, not for 256.
        assert_eq!(of(0.05, 2, Some(256)), (10, 10.0, 50.0));
    }

    #[test]
    fn workers_together_never_take_more_than_the_share() {
        for cores in [1, 2, 4, 64, 1024] {
            for share in [0.01, 0.05, 0.07, 0.3, 0.5, 1.0] {
                for workers in (1..=256).map(Some).chain([None]) {
                    let pace = Pace::of(share, cores, workers).expect("enough for one");
                    // The duty that is kept, which is bounded once more.
                    let pacer = Pacer::new(pace.duty);
                    let duty = 1.0 / (1.0 + pacer.rest_per_work);
                    let taken = f64::from(pace.workers) * duty;
                    let wanted = share * f64::from(cores);
                    assert!(taken <= wanted + 1e-6, "{taken} of {wanted}: {pace:?}");
                    assert!(pace.share <= share, "{pace:?}");
                }
            }
        }
    }

    #[test]
    fn a_share_that_is_too_little_for_one_worker_is_refused() {
        let error = Pace::of(0.001, 2, None).expect_err("a 500th of a core");
        assert!(matches!(error, ContributeError::Share { least, .. } if least == 0.005), "{error}");
        assert!(Pace::of(0.005, 2, None).is_ok());
    }

    #[test]
    fn the_duty_is_kept_whatever_the_steps_take() {
        for duty in [0.05, 0.1, 0.5, 1.0] {
            let mut pacer = Pacer::new(duty);
            let (mut worked, mut rested) = (0.0, 0.0);
            for step in 0..1000u64 {
                let time = Duration::from_micros(200 + (step * 7919) % 30_000);
                pacer.worked(time);
                worked += time.as_secs_f64();
                while pacer.due() > Duration::ZERO {
                    rested += pacer.due().as_secs_f64();
                    pacer.rested(pacer.due());
                }
            }
            let kept = worked / (worked + rested);
            assert!((kept - duty).abs() < 0.01 * duty, "{kept} of {duty}");
        }
    }

    #[test]
    fn a_long_wait_earns_no_burst() {
        let mut pacer = Pacer::new(0.5);
        pacer.rested(Duration::from_secs(3600));
        pacer.worked(Duration::from_millis(100));
        assert!(pacer.due() >= Duration::from_millis(49), "{:?}", pacer.due());
    }
}
