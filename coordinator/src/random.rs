//! Unguessable values from the operating system.

/// 32 letters and digits; those that look alike are left out.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// `N` random bytes.
///
/// # Panics
/// Where the operating system has no random source: nothing here may go on without.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("the operating system has a random source");
    out
}

/// A random 64-bit number that is not 0.
pub fn nonzero_u64() -> u64 {
    loop {
        let value = u64::from_le_bytes(bytes());
        if value != 0 {
            return value;
        }
    }
}

/// Five bits a character; a last group of fewer bits is filled with zeros.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        buffer = buffer << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

/// Compares without telling by its time where two texts differ.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_spells_five_bits_a_character() {
        assert_eq!(base32(&[]), "");
        assert_eq!(base32(&[0xff]), "96");
        assert_eq!(base32(&[0; 5]), "aaaaaaaa");
        assert_eq!(base32(&[0, 0, 0, 0, 1]), "aaaaaaab");
    }
}
