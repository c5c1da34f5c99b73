//! The ranges of the directory follow each other without a gap or an overlap, from the first key to
//! the last.

use rangedb_proto::v1::RangeDescriptor;

use super::Verdict;

/// Descriptors in key order.
pub fn check(ranges: &[RangeDescriptor]) -> Verdict {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return Err("the directory is empty".to_owned());
    };
    if !first.start_key.is_empty() || !last.end_key.is_empty() {
        return Err("the directory does not reach from the first key to the last".to_owned());
    }
    for pair in ranges.windows(2) {
        if pair[0].end_key != pair[1].start_key {
            return Err(format!(
                "range {} ends at \"{}\", but range {} behind it starts at \"{}\"",
                pair[0].range_id,
                pair[0].end_key.escape_ascii(),
                pair[1].range_id,
                pair[1].start_key.escape_ascii()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(range_id: u64, start: &'static str, end: &'static str) -> RangeDescriptor {
        RangeDescriptor {
            range_id,
            start_key: start.into(),
            end_key: end.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_whole_directory_passes_and_gaps_overlaps_and_open_ends_are_caught() {
        assert_eq!(check(&[range(1, "", "m"), range(2, "m", "")]), Ok(()));
        assert_eq!(check(&[range(1, "", "")]), Ok(()));
        assert!(check(&[]).is_err());
        assert!(check(&[range(1, "", "m"), range(2, "n", "")]).is_err());
        assert!(check(&[range(1, "", "m"), range(2, "l", "")]).is_err());
        assert!(check(&[range(1, "", "m")]).is_err());
        assert!(check(&[range(1, "a", "")]).is_err());
    }
}
