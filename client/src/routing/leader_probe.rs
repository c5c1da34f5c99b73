//! Attempt timeouts with a probe, for a node that may be working on a request or may be gone.
//!
//! From outside, a slow request looks like a node that hangs. Sending it again doubles the work
//! where there is already too much of it. Not sending it again makes a range whose leader hangs
//! unreachable until the caller's deadline. So the client probes a node that was silent for half a
//! second with a cheap request for the same range, a scan for a single key:
//!
//! * A node that no longer leads the range, or has no quorum, refuses the probe, and is given up.
//! * A node that hangs does not answer the probe, and is given up.
//! * After any other answer the client goes on waiting.

use std::time::Duration;

use rangedb_proto::successor;
use rangedb_proto::v1::{self, RangeDescriptor, error::Kind, request, response};

use crate::client::header;
use crate::net::{CallError, Net};

/// Timeouts of one attempt and of its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaderProbe {
    /// Silence before the first probe, and between two probes.
    pub interval: Duration,
    /// Time for the response to a probe.
    pub timeout: Duration,
    /// Time for the attempt, whatever the node answers to probes.
    pub total: Duration,
}

impl LeaderProbe {
    /// Sends a request to the leader of a range.
    pub async fn call(
        self,
        net: &dyn Net,
        address: &str,
        range: &RangeDescriptor,
        body: request::Body,
    ) -> Result<response::Body, CallError> {
        let no_leader = Box::pin(self.no_leader(net, address, range));
        net.call_unless(address, body, self.total, no_leader).await
    }

    /// Ends when the node does not lead the range, or the time is up. Returns the reason.
    async fn no_leader(self, net: &dyn Net, address: &str, range: &RangeDescriptor) -> String {
        let deadline = net.now().saturating_add(self.total);
        let left = || deadline.saturating_sub(net.now());
        loop {
            net.sleep(self.interval.min(left())).await;
            if left().is_zero() {
                return format!("no answer within {:?}", self.total);
            }
            let response = net.call(address, probe(range), self.timeout.min(left())).await;
            if !leads(&response) {
                return format!("no answer within {:?}", self.interval + self.timeout);
            }
        }
    }
}

/// The cheapest request that only the leader of a range answers: a page of one key, without its
/// value.
fn probe(range: &RangeDescriptor) -> request::Body {
    let start_key = match &range.start_key[..] {
        [] => b"\0".to_vec().into(),
        _ => range.start_key.clone(),
    };
    let end_key = successor(&start_key).into();
    request::Body::Scan(v1::Scan {
        range: Some(header(range)),
        start_key,
        end_key,
        limit: 1,
        keys_only: true,
        ..Default::default()
    })
}

/// True if the response to a probe comes from a node that leads the range. A leader may be too busy
/// for the probe, or meet a lock.
fn leads(response: &Result<response::Body, CallError>) -> bool {
    match response {
        Err(_) => false,
        Ok(response::Body::Error(error)) => !matches!(
            &error.kind,
            Some(
                Kind::NotLeader(_)
                    | Kind::StaleEpoch(_)
                    | Kind::RangeNotFound(_)
                    | Kind::Unavailable(_)
                    | Kind::Undetermined(_)
                    | Kind::DeadlineExceeded(_)
            ) | None
        ),
        Ok(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_of_the_range_is_waited_for() {
        let error = |error: v1::Error| leads(&Ok(response::Body::Error(error)));
        assert!(leads(&Ok(response::Body::Scan(v1::ScanReply::default()))));
        assert!(error(v1::Error::too_busy(3, "much to do")));
        let lock = Kind::KeyLocked(v1::KeyLocked::default());
        assert!(error(v1::Error::new(lock, "locked")));
        assert!(!error(v1::Error::unavailable("no quorum")));
        let elsewhere = Kind::NotLeader(v1::NotLeader::default());
        assert!(!error(v1::Error::new(elsewhere, "not here")));
        assert!(!leads(&Err(CallError::Lost("silence".into()))));
    }

    #[test]
    fn a_probe_asks_for_one_key_of_the_range_also_of_the_first() {
        let range = |start_key: &'static str| RangeDescriptor {
            start_key: start_key.into(),
            ..Default::default()
        };
        for (start, first) in [("", "\0"), ("m", "m")] {
            let request::Body::Scan(scan) = probe(&range(start)) else { panic!("not a scan") };
            assert_eq!((&scan.start_key[..], scan.limit), (first.as_bytes(), 1));
            assert_eq!(&scan.end_key[..], format!("{first}\0").as_bytes());
        }
    }
}
