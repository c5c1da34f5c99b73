//! Histories: the order of calls in time, and the ways in which a call may end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rangedb_client::Error;

/// Source of growing stamps. If a call was answered before another one began, its last stamp is
/// below the first stamp of the other. Checkers know nothing else of time.
#[derive(Clone)]
pub struct Stamps(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Stamps {
    /// Draws stamps from a counter of its own, for clients in any number of threads.
    pub fn counter() -> Self {
        let last = AtomicU64::new(0);
        Self::from_fn(move || last.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Draws stamps from the caller's counter. Each call of `next` must return more than the one
    /// before it.
    pub fn from_fn(next: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Stamps(Arc::new(next))
    }

    pub fn next(&self) -> u64 {
        (self.0)()
    }
}

/// Outcome of a call that changes something, as far as its client knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The call took effect before it was answered.
    Ok,
    /// The call did not take effect and never will.
    Failed,
    /// The call may have taken effect, or may do so still.
    Unknown,
}

impl Outcome {
    /// Returns the outcome of a write or a commit that ended in an error.
    pub fn of(error: &Error) -> Self {
        match error {
            // An answer that breaks the protocol cannot be believed.
            Error::Undetermined(_) | Error::Corruption { .. } => Outcome::Unknown,
            _ => Outcome::Failed,
        }
    }
}

/// True if a test's faults, or another client's work, explain this error. Every other error is a
/// fault of the cluster by itself: workloads request nothing that does not exist or is forbidden.
pub fn is_explained(error: &Error) -> bool {
    error.is_transaction_conflict()
        || matches!(
            error,
            Error::Conflict { .. }
                | Error::Unavailable(_)
                | Error::TooBusy { .. }
                | Error::DiskFull(_)
                | Error::Undetermined(_)
        )
}

/// True if the requested versions are no longer kept. Only a test that provokes this explains it.
pub fn is_too_old(error: &Error) -> bool {
    matches!(error, Error::TooOld { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_all_clients_grow_together() {
        let stamps = Stamps::counter();
        let other = stamps.clone();
        let drawn = [stamps.next(), other.next(), stamps.next()];
        assert!(drawn.is_sorted_by(|a, b| a < b), "{drawn:?}");
    }

    #[test]
    fn only_what_may_have_happened_is_unknown() {
        let undetermined = Error::Undetermined("lost".to_owned());
        assert_eq!(Outcome::of(&undetermined), Outcome::Unknown);
        assert_eq!(Outcome::of(&Error::Unavailable("down".to_owned())), Outcome::Failed);
        let aborted = Error::Aborted { key: "k".into() };
        assert_eq!(Outcome::of(&aborted), Outcome::Failed);
    }

    #[test]
    fn faults_and_other_clients_explain_no_refusal_by_the_rules() {
        assert!(is_explained(&Error::Unavailable("down".to_owned())));
        assert!(is_explained(&Error::Aborted { key: "k".into() }));
        assert!(!is_explained(&Error::NotFound("k".to_owned())));
        let invalid = Error::Invalid { argument: "key".to_owned(), message: "bad".to_owned() };
        assert!(!is_explained(&invalid));
    }
}
