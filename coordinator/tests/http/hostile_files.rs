//! Evidence and bundles come from strangers: whatever bytes are in them, they are refused or
//! read, and nothing panics. The fuzz targets `evidence` and `bundle` do the same with a fuzzer.

#[path = "../../../fuzz/files/mod.rs"]
mod files;

use raven_graph::philox::{key, philox4x32};

/// Changed files of each kind.
fn cases() -> u64 {
    if std::env::var_os("RAVEN_FULL").is_some() { 100_000 } else { 2_000 }
}

/// What lengths, counts and text are set to.
const WORDS: [&[u8]; 8] =
    [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f", b"9", b"-", b"null", b"\"\""];

/// Some bytes changed, cut out, doubled or put in; or the end cut off.
fn changed(file: &[u8], case: u64) -> Vec<u8> {
    let mut file = file.to_vec();
    let draw = |at: u32| philox4x32([at, 0, 0, 0], key(case));
    for change in 0..1 + draw(0)[0] % 4 {
        let [kind, place, length, what] = draw(1 + change);
        if file.is_empty() {
            break;
        }
        let at = place as usize % file.len();
        let end = (at + 1 + length as usize % 64).min(file.len());
        match kind % 8 {
            0 => file.truncate(at),
            1 => drop(file.drain(at..end)),
            2 => {
                let again = file[at..end].to_vec();
                drop(file.splice(at..at, again));
            }
            3 => drop(file.splice(at..end, WORDS[what as usize % 8].iter().copied())),
            4 => {
                let word = WORDS[what as usize % 8];
                let end = (at + word.len()).min(file.len());
                file[at..end].copy_from_slice(&word[..end - at]);
            }
            _ => file[at] ^= 1 << (what % 8),
        }
    }
    file
}

#[test]
fn evidence_of_any_bytes_is_read_or_refused() {
    let mut taken = 0;
    for with_payload in [true, false] {
        let whole = files::evidence(with_payload).expect("made");
        assert!(files::check_evidence(&whole), "what was written is read");
        taken += (0..cases()).filter(|&case| files::check_evidence(&changed(&whole, case))).count();
    }
    println!("{} changed evidence files, {taken} of them read", 2 * cases());
    assert!((taken as u64) < cases() / 2, "{taken}: most of a file is bound by hashes");
}

#[test]
fn bundles_of_any_bytes_are_checked_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = files::bundle().expect("made");
    assert!(files::check_bundle(folder.path(), &whole), "it is whole but for its model");
    let passed = (0..cases())
        .filter(|&case| files::check_bundle(folder.path(), &changed(&whole, case)))
        .count();
    println!("{} changed bundles, {passed} of them with another model only", cases());
}
