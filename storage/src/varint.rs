//! Variable-length numbers (LEB128): seven bits a byte, the lowest first; the top bit says that
//! more follow.

/// Bytes of the largest number.
const BYTES_MAX: usize = 10;

pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front. `None` if there is none, or if it is longer than needed: every
/// number has one encoding, so equal records have equal bytes.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for place in 0..BYTES_MAX {
        let byte = *bytes.get(place)?;
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << (7 * place);
        if shifted >> (7 * place) != bits {
            return None;
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            if byte == 0 && place > 0 {
                return None;
            }
            *bytes = &bytes[place + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_leave_the_rest() {
        let mut numbers = vec![0, 1, 127, 128, 16383, 16384, u64::MAX - 1, u64::MAX];
        let mut rng = fastrand::Rng::with_seed(1);
        numbers.extend((0..1000).map(|_| rng.u64(..) >> rng.u32(0..64)));
        for number in numbers {
            let mut out = Vec::new();
            put(&mut out, number);
            assert!(out.len() <= BYTES_MAX);
            out.push(7);
            let mut rest = &out[..];
            assert_eq!(take(&mut rest), Some(number));
            assert_eq!(rest, [7]);
        }
    }

    #[test]
    fn cut_oversized_and_padded_numbers_are_refused() {
        for bytes in [&[][..], &[0x80], &[0xff, 0xff], &[0x80, 0x00], &[0xff; 10], &[0x80; 11]] {
            assert_eq!(take(&mut &bytes[..]), None, "{bytes:?}");
        }
        let above_64_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(take(&mut &above_64_bits[..]), None);
    }
}
