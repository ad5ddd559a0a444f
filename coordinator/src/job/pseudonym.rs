//! What visitors are told of whom they compute for: always the same two words for one
//! owner, and no name.

use crate::store::KeyId;

/// One of these, and one of the birds.
const ADJECTIVES: [&str; 32] = [
    "Amber", "Azure", "Bold", "Brisk", "Calm", "Clear", "Copper", "Coral", "Crimson", "Dusky",
    "Early", "Gentle", "Golden", "Grey", "Hazel", "Ivory", "Jade", "Keen", "Lively", "Lunar",
    "Mellow", "Misty", "Noble", "Olive", "Pale", "Quiet", "Rapid", "Russet", "Silver", "Solar",
    "Swift", "Violet",
];
const BIRDS: [&str; 32] = [
    "Albatross",
    "Bittern",
    "Bunting",
    "Condor",
    "Crane",
    "Curlew",
    "Dipper",
    "Eider",
    "Falcon",
    "Finch",
    "Gannet",
    "Grebe",
    "Harrier",
    "Heron",
    "Hoopoe",
    "Ibis",
    "Jay",
    "Kestrel",
    "Kite",
    "Lark",
    "Magpie",
    "Merlin",
    "Oriole",
    "Osprey",
    "Petrel",
    "Plover",
    "Rail",
    "Sandpiper",
    "Swallow",
    "Tern",
    "Thrush",
    "Wren",
];

/// The pseudonym of whoever owns a job.
pub fn pseudonym(owner: KeyId) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"raven requester 1");
    hasher.update(&owner.0.to_le_bytes());
    let hash = hasher.finalize();
    let [first, second, ..] = *hash.as_bytes();
    // 32 divides 256: every word is as likely as another.
    format!("{} {}", ADJECTIVES[usize::from(first) % 32], BIRDS[usize::from(second) % 32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_protocol::limits::REQUESTER_BYTES_MAX;
    use std::collections::BTreeSet;

    #[test]
    fn one_owner_has_one_pseudonym_and_many_have_many() {
        assert_eq!(pseudonym(KeyId(1)), pseudonym(KeyId(1)));
        let names: BTreeSet<String> = (0..100).map(|owner| pseudonym(KeyId(owner))).collect();
        assert!(names.len() > 80, "{} of 100", names.len());
        assert!(names.iter().all(|name| name.len() <= REQUESTER_BYTES_MAX));
        let longest = |words: &[&str; 32]| words.iter().map(|word| word.len()).max();
        let most = longest(&ADJECTIVES).zip(longest(&BIRDS)).map(|(one, two)| one + 1 + two);
        assert!(most <= Some(REQUESTER_BYTES_MAX));
        let is_once = |words: &[&str; 32]| words.iter().collect::<BTreeSet<_>>().len() == 32;
        assert!(is_once(&ADJECTIVES) && is_once(&BIRDS));
    }
}
