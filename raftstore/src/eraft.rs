//! Raft's own messages as bytes. They are protobuf of another generation than the rest of the
//! protocol, so they travel and rest as opaque bytes.

use bytes::Bytes;
use protobuf::{CodedInputStream, Message as _};
use raft::eraftpb::{ConfChangeV2, Message};

pub(crate) fn encode(message: &Message) -> Bytes {
    message.write_to_bytes().expect("writing to memory does not fail").into()
}

/// A raft message out of an envelope; `None` if the bytes are none.
pub fn decode_message(bytes: &[u8]) -> Option<Message> {
    decode(bytes)
}

/// An entry's change of the raft configuration. Empty data leaves the joint configuration.
pub(crate) fn decode_conf_change(bytes: &[u8]) -> Option<ConfChangeV2> {
    decode(bytes)
}

/// From bytes that can be shared and within a limit, or the decoder would make room for whatever
/// length it reads before it finds out that the bytes end. Copied first: what is kept of a message
/// must not keep alive all that travelled with it.
fn decode<M: protobuf::Message>(bytes: &[u8]) -> Option<M> {
    let own = Bytes::copy_from_slice(bytes);
    let mut input = CodedInputStream::from_carllerche_bytes(&own);
    input.push_limit(bytes.len() as u64).ok()?;
    let mut message = M::new();
    message.merge_from(&mut input).ok()?;
    Some(message)
}
