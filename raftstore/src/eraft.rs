//! Raft's own messages as bytes. They are protobuf of another generation than the rest of the
//! protocol, so they travel and rest as opaque bytes.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Message};

pub(crate) fn encode(message: &Message) -> Bytes {
    message.write_to_bytes().expect("writing to memory does not fail").into()
}

/// `None` if the bytes are not a message.
pub(crate) fn decode(bytes: &[u8]) -> Option<Message> {
    let mut message = Message::default();
    message.merge_from_bytes(bytes).ok()?;
    Some(message)
}

/// An entry's change of the raft configuration. Empty data leaves the joint configuration.
pub(crate) fn decode_conf_change(bytes: &[u8]) -> Option<ConfChangeV2> {
    let mut change = ConfChangeV2::default();
    change.merge_from_bytes(bytes).ok()?;
    Some(change)
}
