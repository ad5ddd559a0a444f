//! One job on the digits twice: where nothing disturbs it, and where its coordinator is
//! killed and comes back.

use super::contributor::{Contributor, Habits};
use super::process::{Installation, Process, free_address};
use serde_json::Value;
use std::time::Duration;

/// Trains with one steady contributor that nothing disturbs; answers the job as it ended,
/// and the data folder. `document` makes the job of its data set's id.
pub fn undisturbed(
    document: impl FnOnce(&str) -> Value,
    within: Duration,
) -> (Installation, Value) {
    let installation = Installation::new();
    let key = &installation.key;
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(key);
    let contributor = Contributor::start(process.address(), 1, Habits::default());
    let path = process.post_job(key, &document(&dataset));
    let job = process.finished(key, &path, within);
    drop(contributor);
    process.terminate();
    (installation, job)
}

/// A job whose coordinator comes back to its address after every kill, and two
/// contributors that come back to it.
pub struct Killed {
    installation: Installation,
    listen: String,
    process: Process,
    contributors: Vec<Contributor>,
    path: String,
}

impl Killed {
    /// Begins the job that `document` makes of its data set's id.
    pub fn begin(document: impl FnOnce(&str) -> Value) -> Self {
        let installation = Installation::new();
        let key = &installation.key;
        let address = free_address();
        let listen = address.to_string();
        let process = Process::start_with(&installation.data(), &["--listen", &listen]);
        let dataset = process.upload_digits(key);
        // So slow that the kills fall into the job, on a quick machine too.
        let slow = Duration::from_millis(15);
        let habits = Habits { slow, returns: true, ..Habits::default() };
        let contributors = (1..=2).map(|n| Contributor::start(address, n, habits)).collect();
        let path = process.post_job(key, &document(&dataset));
        Killed { installation, listen, process, contributors, path }
    }

    /// The job as it stands.
    pub fn job(&self) -> Value {
        self.process.call(&self.installation.key, &self.path, None).1
    }

    /// Ends the coordinator as a power cut would.
    pub fn kill(&mut self) {
        self.process.child.kill().expect("killed");
        self.process.child.wait().expect("ended");
    }

    /// Starts it again after a kill, and kills it after a while, whether it has come up or not.
    pub fn fail_to_start(&self, after: Duration) {
        let arguments = ["--listen", self.listen.as_str()];
        let mut starting = Process::spawn(&self.installation.data(), &arguments);
        std::thread::sleep(after);
        starting.kill().expect("killed");
        starting.wait().expect("ended");
    }

    /// Starts it again after a kill, and waits until it listens.
    pub fn restart(&mut self) {
        let arguments = ["--listen", self.listen.as_str()];
        self.process = Process::start_with(&self.installation.data(), &arguments);
    }

    /// Waits for the job's end; answers the job, and the data folder.
    pub fn finish(self, within: Duration) -> (Installation, Value) {
        let job = self.process.finished(&self.installation.key, &self.path, within);
        drop(self.contributors);
        self.process.terminate();
        (self.installation, job)
    }
}
