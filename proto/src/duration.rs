//! Durations as people write them: a whole number with its unit, such as `500ms`, `5s`, `2m`, `1h`.

use std::time::Duration;

/// Parses a duration above zero. A number without a unit is refused, because people disagree on
/// which one it would be.
///
/// # Errors
///
/// The reason, for people, without the text itself.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a whole number with ms, s, m or h behind it, as in 5s".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_millis: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let millis = number.checked_mul(unit_millis).ok_or_else(wrong)?;
    if millis == 0 {
        return Err("it must be more than nothing".to_owned());
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in
            ["", "5", "s", "0s", "-1s", "1.5s", "1d", "5 s", "5S", "99999999999999999h", "٣s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
