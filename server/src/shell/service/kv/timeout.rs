//! Deadline of a call in the format of gRPC: up to eight digits and a unit in `grpc-timeout`.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Part of the timeout that is taken off, as a divisor. So an answer about the state of the request
/// leaves before the caller gives up and has to guess.
const MARGIN_SHARE: u32 = 20;

/// Returns the time for the request. `None` if the caller gave none.
pub(super) fn of(metadata: &MetadataMap) -> Option<Duration> {
    let timeout = parse(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    let timeout = timeout - timeout / MARGIN_SHARE;
    (!timeout.is_zero()).then_some(timeout)
}

fn parse(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().next_back()?;
    let digits = &text[..at];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_nonsense_is_not() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "1", "1x", "-1S", "999999999S", "1ß"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_answer_is_due_before_the_caller_gives_up() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "1000m".parse().unwrap());
        assert_eq!(of(&metadata), Some(Duration::from_millis(950)));
        assert_eq!(of(&MetadataMap::new()), None);
    }
}
