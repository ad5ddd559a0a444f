//! CBOR maps as authenticators write them.

use super::Fault;
use ciborium::Value;
use ciborium::de::from_reader_with_recursion_limit;

/// An attestation is a map of a map of an array of certificates.
const DEPTH_MAX: usize = 8;

/// Pairs of one map. Attestations have three, public keys five at most, and what else an
/// authenticator says is not read: each key is compared with all before it.
const PAIRS_MAX: usize = 32;

/// One map, each of whose keys stands in it once.
#[derive(Debug)]
pub(super) struct Map(Vec<(Value, Value)>);

/// Reads the map that `bytes` begin with, and what follows it.
///
/// # Errors
/// [`Fault::Cbor`].
pub(super) fn map<'a>(bytes: &'a [u8], what: &'static str) -> Result<(Map, &'a [u8]), Fault> {
    let mut rest = bytes;
    let value: Result<Value, _> = from_reader_with_recursion_limit(&mut rest, DEPTH_MAX);
    let Ok(Value::Map(pairs)) = value else { return Err(Fault::Cbor { what }) };
    if pairs.len() > PAIRS_MAX {
        return Err(Fault::Cbor { what });
    }
    let twice = |at: usize| pairs[..at].iter().any(|(key, _)| *key == pairs[at].0);
    if (0..pairs.len()).any(twice) {
        return Err(Fault::Cbor { what });
    }
    Ok((Map(pairs), rest))
}

impl Map {
    fn get(&self, key: &Value) -> Option<&Value> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    pub(super) fn bytes(&self, key: impl Into<Value>) -> Option<&[u8]> {
        self.get(&key.into())?.as_bytes().map(Vec::as_slice)
    }

    pub(super) fn text(&self, key: impl Into<Value>) -> Option<&str> {
        self.get(&key.into())?.as_text()
    }

    pub(super) fn integer(&self, key: impl Into<Value>) -> Option<i128> {
        self.get(&key.into())?.as_integer().map(i128::from)
    }

    pub(super) fn map(&self, key: impl Into<Value>) -> Option<Map> {
        Some(Map(self.get(&key.into())?.as_map()?.clone()))
    }

    pub(super) fn has(&self, key: impl Into<Value>) -> bool {
        self.get(&key.into()).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_a_bounded_number_of_pairs() {
        let of = |count: u8| {
            let pairs = (0..count).flat_map(|at| [0x18, at + 24, 0]);
            [0xb8, count].into_iter().chain(pairs).collect::<Vec<u8>>()
        };
        let most = of(PAIRS_MAX as u8);
        let (found, rest) = map(&most, "it").expect("read");
        assert_eq!((found.0.len(), rest), (PAIRS_MAX, &[][..]));
        let one_more = of(PAIRS_MAX as u8 + 1);
        assert_eq!(map(&one_more, "it").expect_err("refused"), Fault::Cbor { what: "it" });
    }
}
