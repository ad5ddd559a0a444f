//! Counters for `/metrics`, in Prometheus' text form.

use super::outcomes::Tallies;
use raven_protocol::{GoodbyeReason, ResultOutcome};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the runtime counts. Nothing here names a person or an address.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Frames from contributors.
    pub frames_in: Counter,
    /// Frames to contributors.
    pub frames_out: Counter,
    /// Bytes of those frames.
    pub bytes_in: Counter,
    /// Bytes of those frames.
    pub bytes_out: Counter,
    /// Sessions that consented.
    pub sessions_opened: Counter,
    /// Sessions ended by the coordinator, in the order of [`GoodbyeReason::ALL`].
    pub goodbyes: [Counter; GoodbyeReason::ALL.len()],
    /// Leases sent.
    pub leases: Counter,
    /// Leases handed back by contributors.
    pub refusals: Counter,
    /// Commitments received.
    pub commits: Counter,
    /// Tasks whose result was made durable.
    pub tasks_accepted: Counter,
    /// Static cost of those tasks.
    pub flops_accepted: Counter,
    /// Records made durable.
    pub records: Counter,
    /// Tries to store a record that the disk or the database did not let through.
    pub record_retries: Counter,
    /// What became of committed results, in the order of [`ResultOutcome::ALL`].
    pub outcomes: [Counter; ResultOutcome::ALL.len()],
    /// The same by contributor, until it is stored.
    pub tallies: Tallies,
    /// Milliseconds that executor threads were busy.
    pub executor_busy_ms: Counter,
    /// Operations of the executor.
    pub executor_runs: Counter,
    /// Operations that failed.
    pub executor_failures: Counter,
    /// Milliseconds that the referee was busy.
    pub referee_busy_ms: Counter,
    /// Tasks that it computed.
    pub referee_runs: Counter,
    /// Matrix products whose result was checked by probes.
    pub product_checks: Counter,
    /// Those in which a fault was found.
    pub product_faults: Counter,
}

impl Metrics {
    /// Counts a session that the coordinator ended.
    pub fn goodbye(&self, reason: GoodbyeReason) {
        if let Some(index) = GoodbyeReason::ALL.iter().position(|known| *known == reason) {
            self.goodbyes[index].add(1);
        }
    }

    /// The counters as Prometheus' text exposition format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, help, counter) in self.rows() {
            let value = counter.get();
            let _ = writeln!(text, "# HELP raven_{name} {help}\n# TYPE raven_{name} counter");
            let _ = writeln!(text, "raven_{name} {value}");
        }
        let name = "raven_goodbyes_total";
        let _ = writeln!(text, "# HELP {name} Sessions ended, by reason.\n# TYPE {name} counter");
        for (reason, counter) in GoodbyeReason::ALL.iter().zip(&self.goodbyes) {
            let _ = writeln!(text, "{name}{{reason=\"{}\"}} {}", reason.as_str(), counter.get());
        }
        let name = "raven_outcomes_total";
        let help = "Committed results by what became of them.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (outcome, counter) in ResultOutcome::ALL.iter().zip(&self.outcomes) {
            let _ = writeln!(text, "{name}{{outcome=\"{}\"}} {}", outcome.as_str(), counter.get());
        }
        text
    }

    fn rows(&self) -> [(&'static str, &'static str, &Counter); 19] {
        [
            ("frames_in_total", "Frames from contributors.", &self.frames_in),
            ("frames_out_total", "Frames to contributors.", &self.frames_out),
            ("frame_bytes_in_total", "Bytes of frames from contributors.", &self.bytes_in),
            ("frame_bytes_out_total", "Bytes of frames to contributors.", &self.bytes_out),
            ("sessions_opened_total", "Sessions that consented.", &self.sessions_opened),
            ("leases_total", "Leases sent.", &self.leases),
            ("refusals_total", "Leases handed back.", &self.refusals),
            ("commits_total", "Commitments received.", &self.commits),
            ("tasks_accepted_total", "Tasks with a durable result.", &self.tasks_accepted),
            ("flops_accepted_total", "Static cost of accepted tasks.", &self.flops_accepted),
            ("records_total", "Records made durable.", &self.records),
            ("record_retries_total", "Records tried again.", &self.record_retries),
            ("executor_busy_ms_total", "Busy time of the executor.", &self.executor_busy_ms),
            ("executor_runs_total", "Operations of the executor.", &self.executor_runs),
            ("executor_failures_total", "Failed operations.", &self.executor_failures),
            ("referee_busy_ms_total", "Busy time of the referee.", &self.referee_busy_ms),
            ("referee_runs_total", "Tasks that the referee computed.", &self.referee_runs),
            ("product_checks_total", "Products checked by probes.", &self.product_checks),
            ("product_faults_total", "Products that probes found false.", &self.product_faults),
        ]
    }
}
