//! Flushes of the state engine, behind which the log can be dropped. The applied indexes are noted
//! when a flush begins, and the finished flush covers only those.

use std::collections::BTreeMap;

use rangedb_proto::{RangeId, ReplicaId};

use crate::Io;
use crate::peer::Peer;

#[derive(Default)]
pub(super) struct Flushing {
    last_token: u64,
    /// The flush in flight, with the indexes that it will cover. One at a time: a second would wait
    /// for it.
    under_way: Option<(u64, Covered)>,
}

/// Applied indexes by replica. Another replica of the range, created meanwhile, is not covered.
type Covered = BTreeMap<(RangeId, ReplicaId), u64>;

impl Flushing {
    /// Begins a flush if the ranges together have written `log_bytes` of log since the last one,
    /// and none is in flight.
    pub fn begin_if_wanted<'a>(
        &mut self,
        log_bytes: u64,
        peers: impl Iterator<Item = &'a mut Peer>,
    ) -> Option<Io> {
        let mut peers: Vec<_> = peers.collect();
        let written: u64 = peers.iter_mut().map(|peer| peer.log_since_flush()).sum();
        if written < log_bytes || self.under_way.is_some() {
            return None;
        }
        self.last_token += 1;
        let covers = |peer: &mut Peer| ((peer.range, peer.replica_id()), peer.flush_begins());
        let covered = peers.into_iter().map(covers).collect();
        self.under_way = Some((self.last_token, covered));
        Some(Io::Flush { token: self.last_token })
    }

    /// Ends the flush. Returns the applied indexes that it covers.
    pub fn finish(&mut self, token: u64) -> Covered {
        let finished = self.under_way.take_if(|(under_way, _)| *under_way == token);
        finished.map(|(_, covered)| covered).unwrap_or_default()
    }
}
