//! Flushes of the state engine, so that the log behind them can be dropped: the applied indexes are
//! noted first, and only those are covered once the flush is finished.

use std::collections::BTreeMap;

use rangedb_proto::RangeId;

use crate::Effect;
use crate::peer::Peer;

#[derive(Default)]
pub(super) struct Flushing {
    last_token: u64,
    /// The flush under way, with what it will cover. One at a time: a second would wait for it.
    under_way: Option<(u64, BTreeMap<RangeId, u64>)>,
}

impl Flushing {
    /// Begins a flush if some range has written enough log since the last one.
    pub fn begin_if_wanted<'a>(
        &mut self,
        peers: impl Iterator<Item = &'a mut Peer>,
    ) -> Option<Effect> {
        let mut peers: Vec<_> = peers.collect();
        let wanted = peers.iter_mut().any(|peer| peer.wants_flush());
        if !wanted || self.under_way.is_some() {
            return None;
        }
        self.last_token += 1;
        let covered = peers.into_iter().map(|peer| (peer.range, peer.flush_begins())).collect();
        self.under_way = Some((self.last_token, covered));
        Some(Effect::Flush { token: self.last_token })
    }

    /// The applied indexes that the finished flush covers.
    pub fn finish(&mut self, token: u64) -> BTreeMap<RangeId, u64> {
        let finished = self.under_way.take_if(|(under_way, _)| *under_way == token);
        finished.map(|(_, covered)| covered).unwrap_or_default()
    }
}
