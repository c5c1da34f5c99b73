//! Attempt timeouts with a probe: waiting for a node that may be working on a request, or be gone.
//!
//! A request that takes long looks from outside like one to a node that hangs. Sent again, it would
//! be worked on twice, just where there is too much to do already; not sent again, a range whose
//! leader hangs would be out of reach until the caller's time is up. So a node that has said
//! nothing for half a second is asked something cheap about the same range: a scan for a single
//! key. A node that does not lead the range any more, or has no quorum, refuses it; one that stands
//! still says nothing. Then it is left; else it is waited for.

use std::time::Duration;

use rangedb_proto::v1::{self, RangeDescriptor, error::Kind, request, response};

use crate::client::header;
use crate::net::{CallError, Net};

/// Times of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Before it is asked whether it is there, and each time before it is asked again.
    pub quiet: Duration,
    /// For the answer to that.
    pub answer: Duration,
    /// Altogether, whatever it says.
    pub all: Duration,
}

impl Patience {
    /// A request to the leader of a range.
    pub async fn call(
        self,
        net: &dyn Net,
        address: &str,
        range: &RangeDescriptor,
        body: request::Body,
    ) -> Result<response::Body, CallError> {
        let silence = Box::pin(self.silence(net, address, range));
        net.call_unless(address, body, self.all, silence).await
    }

    /// Ends when the node does not answer for the range, or the time is up; says so.
    async fn silence(self, net: &dyn Net, address: &str, range: &RangeDescriptor) -> String {
        let deadline = net.now().saturating_add(self.all);
        let left = || deadline.saturating_sub(net.now());
        loop {
            net.sleep(self.quiet.min(left())).await;
            if left().is_zero() {
                return format!("no answer within {:?}", self.all);
            }
            let answer = net.call(address, probe(range), self.answer.min(left())).await;
            if !leads(&answer) {
                return format!("no answer within {:?}", self.quiet + self.answer);
            }
        }
    }
}

/// The cheapest that only the leader of a range answers: a page of one key, without its value.
fn probe(range: &RangeDescriptor) -> request::Body {
    let start_key = match &range.start_key[..] {
        [] => b"\0".to_vec().into(),
        _ => range.start_key.clone(),
    };
    let end_key = [&start_key[..], b"\0"].concat().into();
    request::Body::Scan(v1::Scan {
        range: Some(header(range)),
        start_key,
        end_key,
        limit: 1,
        keys_only: true,
        ..Default::default()
    })
}

/// True if the answer to a probe is that of a node which leads the range. One that is too busy for
/// it, or meets a lock, does.
fn leads(answer: &Result<response::Body, CallError>) -> bool {
    match answer {
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
    fn who_leads_the_range_is_waited_for_and_nobody_else() {
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
