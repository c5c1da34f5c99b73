//! Encoding of raft-rs's own messages. They use another generation of protobuf than the rest of the
//! protocol, so they are sent and stored as opaque bytes.

use bytes::Bytes;
use protobuf::{CodedInputStream, Message as _};
use raft::eraftpb::{ConfChangeV2, Message};

pub(crate) fn encode(message: &Message) -> Bytes {
    message.write_to_bytes().expect("writing to memory does not fail").into()
}

/// Decodes a raft message from an envelope; `None` if the bytes are not one.
pub fn decode_message(bytes: &[u8]) -> Option<Message> {
    decode(bytes)
}

/// Decodes an entry's change of the raft configuration. Empty data leaves the joint configuration.
pub(crate) fn decode_conf_change(bytes: &[u8]) -> Option<ConfChangeV2> {
    decode(bytes)
}

/// Decodes a copy of the bytes, within a limit. Without the limit, the decoder allocates any length
/// that it reads before it finds that the bytes end. Without the copy, a kept part of a message
/// keeps alive all bytes that arrived with it.
fn decode<M: protobuf::Message>(bytes: &[u8]) -> Option<M> {
    let own = Bytes::copy_from_slice(bytes);
    let mut input = CodedInputStream::from_carllerche_bytes(&own);
    input.push_limit(bytes.len() as u64).ok()?;
    let mut message = M::new();
    message.merge_from(&mut input).ok()?;
    Some(message)
}
