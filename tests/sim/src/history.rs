//! A digest of everything that an engine asked for, in order: two versions of the
//! engine that differ in nothing but speed come to the same.

use crate::kernel::mix;
use raven_engine::Effect;
use std::fmt::{self, Write};

/// The digest so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History(u64);

impl History {
    /// Takes in one more effect, as of `now` in milliseconds.
    pub fn add(&mut self, now: u64, effect: &Effect) {
        let written = write!(self, "{now} {effect:?}");
        written.expect("a digest takes whatever is written");
    }
}

impl Write for History {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = mix(self.0, u64::from_le_bytes(word));
        }
        Ok(())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
