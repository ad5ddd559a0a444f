//! Consent is asked of everyone: what will run is said, and a yes is waited for.

use super::pace::Pace;
use super::{Contribute, ContributeError};
use std::io::Write;

/// Words that count as a yes.
const YES: [&str; 2] = ["yes", "y"];
/// No answer is longer.
const ANSWER_BYTES_MAX: u64 = 64;

/// What whoever is asked gets to read.
pub(super) fn words(asked: &Contribute, pace: Pace, key: &str, text_version: &str) -> String {
    let share = pace.share * 100.0;
    let (to, workers, duty) = (&asked.to, pace.workers, pace.duty * 100.0);
    format!(
        "{to} asks to compute on this machine.\n\
         What runs: training tasks of this coordinator's customers, in a sandbox without files\n\
         and without network; you may see the data of the jobs, and nothing of yours is read.\n\
         How much: {share:.0} % of the processors ({workers} workers, each {duty:.0} % of the time), \
         up to {} MiB of memory each.\n\
         What is earned goes to the key {key}, and nothing to a site.\n\
         The coordinator is told: this key, your address, the number of cores, the speed of one worker.\n\
         Your key signs that this was agreed to (consent text {text_version}). \
         Ctrl-C ends it at any time.\n",
        super::worker::MEMORY_BYTES >> 20,
    )
}

/// Asks, unless the yes was given before. Blocks.
///
/// # Errors
/// [`ContributeError::NoConsent`].
pub(super) fn ask(yes: bool) -> Result<(), ContributeError> {
    use std::io::{BufRead, Read};
    if yes {
        println!("Yes was given on the command line.");
        return Ok(());
    }
    print!("Agree? [yes/no] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer);
    let is_yes = YES.contains(&answer.trim().to_ascii_lowercase().as_str());
    if read.is_ok() && is_yes { Ok(()) } else { Err(ContributeError::NoConsent) }
}
