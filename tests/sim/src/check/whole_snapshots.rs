//! A sent snapshot holds what its view showed when it was taken. It may have waited for long, and
//! compaction may have dropped records in the meantime.

use super::Verdict;

/// Compares the hashes of what may not be dropped from the view, at first and when the view was
/// read. Both are `None` if that was the same moment.
pub fn check(range: u64, at_first: Option<u64>, when_read: Option<u64>) -> Verdict {
    if at_first == when_read {
        Ok(())
    } else {
        Err(format!("a snapshot of range {range} lacks what its view showed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_was_thinned_out_is_caught() {
        assert_eq!(check(1, Some(7), Some(7)), Ok(()));
        assert!(check(1, Some(7), Some(8)).is_err());
    }
}
