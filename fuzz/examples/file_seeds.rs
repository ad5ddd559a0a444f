//! Writes an evidence file and a bundle, both of them whole, for the targets that read them.
//!
//! `cargo run --features files --example file_seeds -- FOLDER` writes `FOLDER/<target>/<name>`.

#[allow(dead_code)]
#[path = "../files/mod.rs"]
mod files;

use files::{Failed, bundle, evidence};
use std::path::Path;
use std::{env, fs};

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<(), Failed> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

fn main() -> Result<(), Failed> {
    let folder = env::args_os().nth(1).ok_or("usage: file_seeds FOLDER")?;
    let folder = Path::new(&folder);
    write(folder, "evidence", "shown", &evidence(true)?)?;
    write(folder, "evidence", "digest-only", &evidence(false)?)?;
    write(folder, "bundle", "two-rounds", &bundle()?)
}
