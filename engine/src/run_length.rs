//! How long a run of micro-batches a task should be.
//!
//! Long runs send fewer results, short ones spread better. The choice changes
//! who computes what and when, never the result: every run is a node of the
//! same tree.

/// What one session brings to a round, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Contributor {
    pub(crate) workers: u32,
    /// One micro-batch on one worker.
    pub(crate) micro_batch_ms: f64,
    /// Sending one result, which goes on beside the next task's computing.
    pub(crate) result_ms: f64,
    /// Before its first task can start: weights on their way.
    pub(crate) setup_ms: f64,
}

/// The greatest power of two that a session computes within `task_ms_max`, at least 1.
pub(crate) fn longest_run(micro_batch_ms: f64, task_ms_max: u64) -> u32 {
    let fits = (task_ms_max as f64 / micro_batch_ms.max(1e-6)) as u32;
    match fits {
        0 => 1,
        _ => 1 << (31 - fits.min(1 << 16).leading_zeros()),
    }
}

/// The run length that lets `contributors` finish `micro_batches` soonest, by
/// estimate. Each session takes at most what it computes within `task_ms_max`.
pub(crate) fn choose(micro_batches: u32, contributors: &[Contributor], task_ms_max: u64) -> u32 {
    let mut best = (f64::INFINITY, 1);
    let mut length = 1u32;
    loop {
        // A longer run must pay: it wins only where it is clearly sooner.
        let at_most = best.0 * 0.98;
        let round = Round::new(micro_batches, contributors, length, task_ms_max);
        if let Some(estimate) = round.estimate_ms(at_most).filter(|&ms| ms < at_most) {
            best = (estimate, length);
        }
        if length >= micro_batches.min(1 << 16) {
            return best.1;
        }
        length *= 2;
    }
}

/// What one session does of a round, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Pace {
    workers: f64,
    length: f64,
    /// One of its runs on one worker.
    run_ms: f64,
    result_ms: f64,
    setup_ms: f64,
}

/// A round whose runs are of one length, as far as sessions can take it.
#[derive(Debug)]
struct Round {
    micro_batches: f64,
    paces: Vec<Pace>,
}

impl Round {
    fn new(micro_batches: u32, contributors: &[Contributor], length: u32, max: u64) -> Self {
        let pace = |c: &Contributor| {
            let length = f64::from(length.min(longest_run(c.micro_batch_ms, max)));
            Pace {
                workers: f64::from(c.workers),
                length,
                run_ms: length * c.micro_batch_ms,
                result_ms: c.result_ms,
                setup_ms: c.setup_ms,
            }
        };
        let paces = contributors.iter().map(pace).collect();
        Round { micro_batches: f64::from(micro_batches), paces }
    }

    /// Whether all micro-batches are done after `ms`, when tasks go to whoever is free.
    fn is_done_by(&self, ms: f64) -> bool {
        let mut done = 0.0;
        for pace in &self.paces {
            let left = ms - pace.setup_ms - pace.result_ms;
            if left > 0.0 {
                let computed = pace.workers * (left / pace.run_ms).floor();
                let sent = ((left + pace.result_ms) / pace.result_ms.max(1e-6)).floor();
                done += computed.min(sent) * pace.length;
                if done >= self.micro_batches {
                    return true;
                }
            }
        }
        false
    }

    /// Time until all micro-batches are done; `None` where it is not below `at_most`.
    fn estimate_ms(&self, at_most: f64) -> Option<f64> {
        if self.paces.is_empty() {
            return Some(0.0);
        }
        // Estimates are off by a part of a task: the last one to finish decides,
        // so that the longest task counts a quarter on top.
        let longest = self.paces.iter().map(|pace| pace.run_ms).fold(0.0, f64::max);
        // One look says whether the search can come to something. A little more than
        // what is left, so that rounding loses nothing.
        if at_most.is_finite() && !self.is_done_by(at_most * (1.0 + 1e-12) - 0.25 * longest) {
            return None;
        }
        let (mut low, mut high) = (0.0, 1.0);
        while !self.is_done_by(high) {
            (low, high) = (high, high * 2.0);
        }
        for _ in 0..12 {
            let middle = (low + high) / 2.0;
            if self.is_done_by(middle) { high = middle } else { low = middle }
        }
        Some(high + 0.25 * longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contributor(micro_batch_ms: f64, result_ms: f64) -> Contributor {
        Contributor { workers: 1, micro_batch_ms, result_ms, setup_ms: 100.0 }
    }

    #[test]
    fn a_run_is_at_most_two_seconds() {
        assert_eq!(longest_run(100.0, 2000), 16);
        assert_eq!(longest_run(1000.0, 2000), 2);
        assert_eq!(longest_run(9999.0, 2000), 1);
        assert_eq!(longest_run(0.0, 2000), 1 << 16);
    }

    #[test]
    fn what_is_not_looked_at_closely_is_no_better() {
        use raven_graph::philox::word_at;
        for case in 0..400u64 {
            let word = |slot: u32, below: u32| word_at(case, 9, 0, slot.into()) % below;
            let micro_batches = 1 + word(0, 600);
            let contributors: Vec<Contributor> = (0..1 + word(1, 40))
                .map(|i| Contributor {
                    workers: 1 + word(8 * i + 2, 4),
                    micro_batch_ms: f64::from(1 + word(8 * i + 3, 3_000)) / 2.0,
                    result_ms: f64::from(word(8 * i + 4, 800)),
                    setup_ms: f64::from(word(8 * i + 5, 400)),
                })
                .collect();
            let all =
                (0..).map(|order| 1 << order).take_while(|&length| length < 2 * micro_batches);
            let all = all.map(|length| {
                let round = Round::new(micro_batches, &contributors, length, 2_000);
                (round.estimate_ms(f64::INFINITY).expect("no limit"), length)
            });
            let best =
                all.fold(
                    (f64::INFINITY, 1),
                    |best, found| {
                        if found.0 < best.0 * 0.98 { found } else { best }
                    },
                );
            assert_eq!(choose(micro_batches, &contributors, 2_000), best.1, "case {case}");
        }
    }

    #[test]
    fn the_length_follows_contributors_and_overhead() {
        let cases = [
            // Each of four micro-batches to one of four contributors.
            (4, vec![contributor(1000.0, 100.0); 4], 1),
            // One contributor alone: no use in sending more than it must.
            (4, vec![contributor(20.0, 700.0)], 4),
            // Slow links and fast devices: fewer, longer tasks.
            (64, vec![contributor(10.0, 300.0); 4], 16),
            // Nobody is there: any length will do.
            (64, vec![], 1),
        ];
        for (micro_batches, contributors, expected) in cases {
            let found = choose(micro_batches, &contributors, 2000);
            assert_eq!(found, expected, "{micro_batches} for {contributors:?}");
        }
        let many = vec![contributor(1000.0, 200.0); 64];
        assert_eq!(choose(256, &many, 2000), 1, "four tasks of a second each");
    }
}
