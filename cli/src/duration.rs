//! Durations for people.

/// Formats elapsed time, rounded down to one unit. Ages need no more precision.
pub fn rounded(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..120_000 => format!("{}s", millis / 1_000),
        120_000..7_200_000 => format!("{}m", millis / 60_000),
        _ => format!("{}h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_times_are_rounded_down_to_larger_units() {
        let rounded: Vec<_> = [999, 119_999, 120_000, 7_200_000].map(rounded).into();
        assert_eq!(rounded, ["999ms", "119s", "2m", "2h"]);
    }
}
