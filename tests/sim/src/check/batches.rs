//! A batch is seen as a whole or not at all: keys that are only ever written together hold the same
//! at every timestamp.

use super::Verdict;
use crate::history::PairRead;

pub fn check(reads: &[PairRead]) -> Verdict {
    for PairRead { at, values: [first, second] } in reads {
        if first != second {
            return Err(format!("a batch is seen in part at {at}: {first:?} and {second:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_batch_is_caught() {
        assert_eq!(check(&[PairRead { at: 1, values: [Some(1), Some(1)] }]), Ok(()));
        assert!(check(&[PairRead { at: 1, values: [Some(1), None] }]).is_err());
    }
}
