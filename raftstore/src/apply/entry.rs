//! Decoding of committed entries for the applier, and the reasons for which one cannot be applied.
//!
//! A reason depends only on the entry and the descriptor, so every replica of this version finds
//! the same one. The applier then quarantines the range (`replica.rs`), and the process goes on.

use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, EntryType};
use rangedb_proto::RangeDescriptorExt;
use rangedb_proto::v1::{LogEntry, MembershipChange, RangeDescriptor};

use crate::membership::{Change, are_sound, replicas_after_joint};
use crate::{FEATURE_LEVEL, eraft};

pub(super) struct Entry {
    pub kind: Kind,
    /// Approximate number of records that applying the entry touches.
    pub cost: u64,
}

pub(super) enum Kind {
    /// The first entry of a leader, or a membership change that raft-rs did not allow and emptied.
    Empty,
    Commands(LogEntry),
    /// A membership change with the descriptor after it; `None` if it was proposed under another
    /// epoch.
    Membership(Option<(ConfChangeV2, Box<RangeDescriptor>)>),
}

impl Entry {
    /// Decodes an entry.
    ///
    /// # Errors
    ///
    /// The reason why no replica of this version can apply the entry.
    pub fn read(entry: &raft::eraftpb::Entry, before: &RangeDescriptor) -> Result<Entry, String> {
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {
                Ok(Entry { kind: Kind::Empty, cost: 0 })
            }
            EntryType::EntryNormal => {
                let commands = LogEntry::decode(entry.data.clone())
                    .map_err(|e| format!("the entry cannot be decoded: {e}"))?;
                if commands.feature_level > FEATURE_LEVEL {
                    return Err(format!(
                        "the entry has feature level {}, this version knows {FEATURE_LEVEL}: \
                         upgrade this node",
                        commands.feature_level
                    ));
                }
                let cost = u64::from(commands.cost).max(commands.commands.len() as u64);
                Ok(Entry { kind: Kind::Commands(commands), cost })
            }
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                Ok(Entry { kind: Kind::Membership(membership(entry, before)?), cost: 1 })
            }
        }
    }
}

type AppliedChange = Option<(ConfChangeV2, Box<RangeDescriptor>)>;

/// Decodes a membership change and computes the descriptor after it. Its proposer checked the
/// change against the descriptor, which is the same everywhere, so a change that fails here was not
/// proposed by this project's code.
fn membership(
    entry: &raft::eraftpb::Entry,
    before: &RangeDescriptor,
) -> Result<AppliedChange, String> {
    let change = eraft::decode_conf_change(&entry.data).ok_or("not a configuration change")?;
    let mut after = before.clone();
    if entry.data.is_empty() {
        if !before.in_joint_change() {
            return Err("it leaves a joint configuration that there is not".into());
        }
        after.replicas = replicas_after_joint(&before.replicas);
    } else {
        let wanted = MembershipChange::decode(entry.context.clone())
            .map_err(|e| format!("the membership change cannot be decoded: {e}"))?;
        if wanted.epoch != before.epoch {
            return Ok(None);
        }
        if !are_sound(&wanted.replicas, wanted.next_replica_id) {
            return Err("its replicas cannot be those of a range".into());
        }
        let step = Change::between(&before.replicas, &wanted.replicas)
            .filter(|step| step.conf_change() == change)
            .ok_or("raft and the descriptor would change in different ways")?;
        after.replicas = step.replicas_after(&before.replicas);
        after.next_replica_id = wanted.next_replica_id;
    }
    let mut epoch = before.epoch();
    epoch.conf_ver += 1;
    after.epoch = Some(epoch);
    Ok(Some((change, Box::new(after))))
}
