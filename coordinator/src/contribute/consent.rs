//! Consent is asked of everyone: what will run is said, and a yes is waited for.

use super::memory::Memory;
use super::pace::Pace;
use super::{Contribute, ContributeError};
use crate::embed::short_hash;
use std::io::Write;

/// Words that count as a yes.
const YES: [&str; 2] = ["yes", "y"];
/// No answer is longer.
const ANSWER_BYTES_MAX: u64 = 64;

/// What whoever is asked gets to read, with `{name}` places.
const WORDS: &str = include_str!("words.txt");

/// The version of these words, which a receipt names. They are not those of the frame,
/// so that their version is another; a coordinator takes it from servers without a ticket.
pub(crate) fn words_version() -> String {
    short_hash(blake3::Hasher::new().update(WORDS.as_bytes()))
}

/// What whoever is asked gets to read.
pub(super) fn words(asked: &Contribute, pace: Pace, memory: Memory, key: &str) -> String {
    WORDS
        .replace("{to}", &asked.to.to_string())
        .replace("{share}", &format!("{:.0}", pace.share * 100.0))
        .replace("{workers}", &pace.workers.to_string())
        .replace("{duty}", &format!("{:.0}", pace.duty * 100.0))
        .replace("{instance}", &(memory.instance_bytes >> 20).to_string())
        .replace("{total}", &(memory.total_bytes() >> 20).to_string())
        .replace("{key}", key)
        .replace("{version}", &words_version())
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
