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
        let estimate = round_ms(micro_batches, contributors, length, task_ms_max);
        // A longer run must pay: it wins only where it is clearly sooner.
        if estimate < best.0 * 0.98 {
            best = (estimate, length);
        }
        if length >= micro_batches.min(1 << 16) {
            return best.1;
        }
        length *= 2;
    }
}

/// Time until all micro-batches are done, when tasks go to whoever is free.
fn round_ms(micro_batches: u32, contributors: &[Contributor], length: u32, max: u64) -> f64 {
    if contributors.is_empty() {
        return 0.0;
    }
    let run = |c: &Contributor| length.min(longest_run(c.micro_batch_ms, max));
    let done_by = |ms: f64| -> f64 {
        let done = contributors.iter().map(|c| {
            let (length, left) = (f64::from(run(c)), ms - c.setup_ms - c.result_ms);
            if left <= 0.0 {
                return 0.0;
            }
            let computed = f64::from(c.workers) * (left / (length * c.micro_batch_ms)).floor();
            let sent = ((left + c.result_ms) / c.result_ms.max(1e-6)).floor();
            computed.min(sent) * length
        });
        done.sum()
    };
    let (mut low, mut high) = (0.0, 1.0);
    while done_by(high) < f64::from(micro_batches) {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..12 {
        let middle = (low + high) / 2.0;
        if done_by(middle) < f64::from(micro_batches) { low = middle } else { high = middle }
    }
    // Estimates are off by a part of a task: the last one to finish decides,
    // so that the longest task counts a quarter on top.
    let longest = contributors.iter().map(|c| f64::from(run(c)) * c.micro_batch_ms);
    high + 0.25 * longest.fold(0.0, f64::max)
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
