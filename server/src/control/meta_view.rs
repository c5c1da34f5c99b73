//! View of the keys under `_/` for people: stored messages as JSON, and the raft groups, which are
//! not stored.

use bytes::Bytes;
use futures::TryStreamExt;
use rangedb_client::RangeOptions;
use rangedb_proto::v1::{self, MetaEntry, MetaRead, MetaReadReply, RangeReport};
use rangedb_proto::{SYSTEM_PREFIX, prefix_end, successor};
use serde_json::{Value, json};

use super::Control;
use crate::system::records::{self, Record};

/// Entries in one page at most.
const ENTRIES_MAX: u64 = 500;

impl Control {
    pub(super) async fn meta_read(&self, ask: MetaRead) -> Result<MetaReadReply, v1::Error> {
        let prefix = if ask.prefix.is_empty() { SYSTEM_PREFIX.into() } else { ask.prefix.clone() };
        if !prefix.starts_with(SYSTEM_PREFIX) && !SYSTEM_PREFIX.starts_with(&prefix) {
            return Err(v1::Error::invalid("prefix", "system keys start with `_/`"));
        }
        let limit = if ask.limit == 0 { ENTRIES_MAX } else { ask.limit.min(ENTRIES_MAX) };
        let mut entries = self.stored(&ask, &prefix, limit).await?;
        entries.extend(self.groups_view(&ask, &prefix));
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(MetaReadReply { entries, more })
    }

    async fn stored(
        &self,
        ask: &MetaRead,
        prefix: &Bytes,
        limit: u64,
    ) -> Result<Vec<MetaEntry>, v1::Error> {
        let end: Bytes =
            if ask.exact { successor(prefix).into() } else { prefix_end(prefix).into() };
        let after =
            if ask.after.is_empty() { prefix.clone() } else { successor(&ask.after).into() };
        let start = after.max(prefix.clone());
        if !end.is_empty() && start >= end {
            return Ok(Vec::new());
        }
        let options = RangeOptions::new(start, end).limit(limit + 1);
        let rows = self.around.client.system().range(options);
        let rows = rows.map_ok(|kv| MetaEntry {
            json: records::show(&kv.key, &kv.value).to_string(),
            key: kv.key,
            version: kv.version,
            mod_ts: kv.mod_ts.0,
        });
        rows.try_collect().await.map_err(|e: rangedb_client::Error| e.into())
    }

    fn groups_view(&self, ask: &MetaRead, prefix: &Bytes) -> Vec<MetaEntry> {
        let wanted = |key: &[u8]| {
            let asked = if ask.exact { key == &prefix[..] } else { key.starts_with(prefix) };
            asked && key > &ask.after[..]
        };
        let entry = |(id, report): (u64, RangeReport)| MetaEntry {
            key: [records::RAFT_GROUPS, id.to_string().as_bytes()].concat().into(),
            json: report_json(&report).to_string(),
            ..Default::default()
        };
        self.groups().into_iter().map(entry).filter(|entry| wanted(&entry.key)).collect()
    }
}

fn report_json(report: &RangeReport) -> Value {
    json!({
        "descriptor": report.descriptor.as_ref().map(Record::show),
        "term": report.term,
        "leader_node_id": report.leader_node_id,
        "down_replica_ids": report.down_replica_ids,
        "lagging_replica_ids": report.lagging_replica_ids,
        "applied_index": report.applied_index,
        "log_entries": report.log_entries,
        "rows": report.rows,
        "row_bytes": report.row_bytes,
        "in_joint_change": report.in_joint_change,
    })
}
