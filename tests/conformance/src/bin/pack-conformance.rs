//! `pack-conformance DIR`: turns the files of `reference.py` in DIR into the
//! suite that every runner reads.

use raven_conformance::suite::Suite;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir: PathBuf = std::env::args().nth(1).ok_or("usage: pack-conformance DIR")?.into();
    let suite = Suite::pack(&dir)?;
    println!("{} cases and {} tasks of training packed", suite.cases.len(), suite.training.len());
    suite.write(&dir)
}
