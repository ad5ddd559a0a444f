//! An evidence file of anybody's: evidence that fits together, or a refusal. The signature
//! is put behind the input, or nothing would get past it.

#![no_main]

#[allow(dead_code)]
#[path = "../files/mod.rs"]
mod files;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    files::check_evidence(content);
});
