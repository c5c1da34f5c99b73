//! Order-preserving encoding of user keys.
//!
//! An engine compares keys byte by byte. A stored key is a user key with a suffix, and a user key
//! may hold any byte. So the user key is escaped and terminated: `00` becomes `00 ff`, and `00 01`
//! ends the key. All formats rest on two facts:
//! - escaped keys compare as the raw keys do, because `00 01` is less than anything that can stand
//!   in its place (`00 ff`, or a byte of `01` and above);
//! - no escaped key is a prefix of another, so a suffix never changes the order of two different
//!   user keys.

use crate::{Error, Result};

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const END: u8 = 0x01;
/// End of a successor: above every key that begins with the escaped key, below every other that
/// follows.
const BEHIND_END: u8 = 0x02;

/// Appends the escaped key and its end.
pub fn escape_into(out: &mut Vec<u8>, raw: &[u8]) {
    for (place, piece) in raw.split(|byte| *byte == ESCAPE).enumerate() {
        if place > 0 {
            out.extend_from_slice(&[ESCAPE, ESCAPED_ZERO]);
        }
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&[ESCAPE, END]);
}

/// Returns the escaped key and its end, with room for `behind` more bytes.
pub fn escape(raw: &[u8], behind: usize) -> Vec<u8> {
    let zeros = raw.iter().filter(|byte| **byte == ESCAPE).count();
    let mut out = Vec::with_capacity(raw.len() + zeros + 2 + behind);
    escape_into(&mut out, raw);
    out
}

/// Returns the least byte string above every one that begins with the escaped key.
pub fn escaped_successor(raw: &[u8]) -> Vec<u8> {
    let mut out = escape(raw, 0);
    *out.last_mut().expect("an escaped key has an end") = BEHIND_END;
    out
}

/// Splits `stored` into the raw key at its beginning and the bytes behind the key's end.
///
/// # Errors
/// [`Error::Damaged`] if `stored` does not begin with an escaped key.
pub fn unescape(stored: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let mut raw = Vec::with_capacity(stored.len());
    let mut rest = stored;
    loop {
        let Some(zero) = rest.iter().position(|byte| *byte == ESCAPE) else {
            return Err(malformed(stored, "has no end"));
        };
        raw.extend_from_slice(&rest[..zero]);
        match rest.get(zero + 1) {
            Some(&ESCAPED_ZERO) => raw.push(ESCAPE),
            Some(&END) => return Ok((raw, &rest[zero + 2..])),
            Some(_) => return Err(malformed(stored, "has an unknown escape")),
            None => return Err(malformed(stored, "ends within an escape")),
        }
        rest = &rest[zero + 2..];
    }
}

/// Error with the stored key as printable text and the reason.
pub(crate) fn malformed(stored: &[u8], reason: &str) -> Error {
    Error::damaged(format!("stored key \"{}\" {reason}", stored.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short keys over few bytes, so that prefixes, zeros and neighbours of the escapes meet often.
    fn random_key(rng: &mut fastrand::Rng) -> Vec<u8> {
        let alphabet = [0x00, 0x00, 0x01, 0x02, b'a', 0xfe, 0xff];
        (0..rng.usize(0..6)).map(|_| alphabet[rng.usize(0..alphabet.len())]).collect()
    }

    #[test]
    fn escaped_keys_compare_as_the_raw_keys_whatever_follows_them() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let (a, b) = (random_key(&mut rng), random_key(&mut rng));
            let (mut stored_a, mut stored_b) = (escape(&a, 0), escape(&b, 0));
            assert_eq!(a.cmp(&b), stored_a.cmp(&stored_b), "{a:?} {b:?}");
            let (behind_a, behind_b) = (random_key(&mut rng), random_key(&mut rng));
            stored_a.extend(&behind_a);
            stored_b.extend(&behind_b);
            let expected = a.cmp(&b).then(behind_a.cmp(&behind_b));
            assert_eq!(expected, stored_a.cmp(&stored_b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn an_escaped_key_comes_back_with_what_followed_it() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let (raw, behind) = (random_key(&mut rng), random_key(&mut rng));
            let mut stored = escape(&raw, behind.len());
            stored.extend(&behind);
            assert_eq!(stored.capacity(), stored.len(), "room was counted exactly");
            assert_eq!(unescape(&stored).unwrap(), (raw, &behind[..]));
        }
    }

    #[test]
    fn the_successor_is_above_the_keys_records_and_below_the_next_key() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let (a, b) = (random_key(&mut rng), random_key(&mut rng));
            let mut record = escape(&b, 0);
            record.extend(random_key(&mut rng));
            assert_eq!(record < escaped_successor(&a), b <= a, "{a:?} {b:?}");
        }
    }

    #[test]
    fn malformed_keys_are_refused_with_the_bytes_in_the_message() {
        for (stored, reason) in [
            (&b""[..], "has no end"),
            (b"abc", "has no end"),
            (b"abc\x00", "ends within an escape"),
            (b"a\x00\x02", "has an unknown escape"),
            (b"a\x00\xff", "has no end"),
        ] {
            let message = unescape(stored).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
            assert!(message.contains(&stored.escape_ascii().to_string()), "{message}");
        }
    }
}
