//! A bundle of anybody's: `verify-model` refuses it or goes on to the model, whatever is in
//! it. Checksums of the archive and the certificate's signature are put right, or nothing
//! would get past them.

#![no_main]

#[allow(dead_code)]
#[path = "../files/mod.rs"]
mod files;

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A folder of this process.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("raven-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    files::check_bundle(&FOLDER, bytes);
});
