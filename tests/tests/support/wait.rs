//! The one way in which tests wait: for a condition, which they check again and again.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Interval between two checks: short against all waits, and long enough that checking does not
/// take the processor from the awaited work.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Timeout for what takes a healthy cluster a few seconds at most, on a machine with other work.
pub const SOON: Duration = Duration::from_secs(30);

/// Calls `look` until it returns a value, and returns the value. Its error says why the condition
/// does not hold yet.
///
/// # Panics
/// After `within`, with the last reason.
pub async fn until<T, E: Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        let reason = match look().await {
            Ok(found) => return found,
            Err(reason) => reason,
        };
        assert!(Instant::now() < deadline, "{what}: not within {within:?}: {reason}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns `Ok` if the condition holds, else the reason.
pub fn check(holds: bool, reason: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason.to_string()) }
}
