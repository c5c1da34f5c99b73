//! The one way in which tests wait: for a condition, by asking again and again.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks: short against everything that is waited for, long enough that waiting does not
/// take the processor from what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// For what takes a healthy cluster a few seconds at most, on a machine with other things to do.
pub const SOON: Duration = Duration::from_secs(30);

/// Returns what `look` finds once it finds it; an error says why the condition does not hold yet.
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

/// `Ok` if the condition holds, else the reason.
pub fn check(holds: bool, reason: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason.to_string()) }
}
