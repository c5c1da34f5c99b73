//! Commit timestamps as a date and time that people read.

use rangedb_client::Timestamp;

/// Formats a timestamp as RFC 3339, in UTC and to the millisecond: `2025-07-01T12:00:00.123Z`.
pub fn format(timestamp: Timestamp) -> String {
    let millis = i64::try_from(timestamp.millis()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        // No timestamp is so late: they end in the year 3084.
        Err(_) => format!("{millis} ms after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_shown_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_751_371_199_123, "2025-07-01T11:59:59.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format(Timestamp::from_millis(millis)), text);
        }
        assert!(format(Timestamp::MAX).starts_with("3084-"), "{}", format(Timestamp::MAX));
    }
}
