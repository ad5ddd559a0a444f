//! The program of `coordinator contribute`, started, heard and ended.

use crate::support::process::{Installation, program};
use crate::support::{cache_dir, kernel_file};
use raven_engine::ContributorId;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(120);
/// Whoever is asked to end does so in this time.
pub const ENDING: Duration = Duration::from_secs(5);

/// A running contributor, and what it says.
pub struct Native {
    pub child: Child,
    pub lines: Arc<Mutex<Vec<String>>>,
    /// Until all that it says has been heard.
    reader: Option<JoinHandle<()>>,
}

impl Native {
    pub fn command(url: &str, key: &Path, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(["contribute", "--to", url, "--workers", "1", "--share", "1"]);
        command.args(arguments).arg("--key").arg(key).arg("--cache").arg(cache_dir());
        if !arguments.contains(&"--kernel") {
            command.arg("--kernel").arg(kernel_file());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts one that has said yes.
    pub fn start(url: &str, key: &Path) -> Self {
        Self::launch(Self::command(url, key, &["--yes"]))
    }

    pub fn launch(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (heard, stdout) = (lines.clone(), child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                heard.lock().expect("nobody panics").push(line);
            }
        });
        Native { child, lines, reader: Some(reader) }
    }

    pub fn said(&self, words: &str) -> usize {
        let lines = self.lines.lock().expect("nobody panics");
        lines.iter().filter(|line| line.contains(words)).count()
    }

    /// Waits until it has said so for the `count`th time.
    pub fn says(&self, words: &str, count: usize) {
        let began = Instant::now();
        while self.said(words) < count {
            let lines = self.lines.lock().expect("nobody panics").clone();
            assert!(began.elapsed() < PATIENCE, "{words:?} was not said in {lines:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(killed.expect("kill").success());
    }

    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("it heard all");
                }
                return status;
            }
            assert!(asked.elapsed() < within, "it did not end within {within:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote to its log, once it has ended.
    pub fn log(&mut self) -> String {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        log
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // One that has ended already is not killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn key_file(installation: &Installation, number: u8) -> PathBuf {
    installation.path().join(format!("contributor-{number}.key"))
}

/// The public half of the key in a file, as the books name it.
pub fn contributor(key: &Path) -> ContributorId {
    let text = std::fs::read_to_string(key).expect("a key");
    let secret = raven_coordinator::runtime::session::parse_hex(text.trim()).expect("hex");
    ContributorId(ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key().to_bytes())
}

/// Processor time of a process and its threads, as the system counts it: hundredths of a second.
pub fn computed(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("counted");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}
