//! Codec of every gRPC service here: protobuf by prost, with a bound on the memory that a message
//! takes once it is decoded.
//!
//! A message of two bytes can become a struct of hundreds, so the length of a message says little
//! about the memory that it will need. Before a large message is decoded, a walk over its bytes
//! adds up the cost of its parts, without allocating. The message is refused if they cost too much.
//! The cost of each part is computed from the descriptors when this crate is built
//! (`build/shapes.rs`).

use std::marker::PhantomData;

use bytes::Buf;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Messages up to this length are decoded without a check, because none of them can take much
/// memory.
const UNSEEN_BYTES_MAX: usize = 4 * 1024;

/// Bytes that the parts of any message may cost, and the bytes added to that for each byte of the
/// message. This is twice what the largest commands, pages and batches of small items need.
const PARTS_BYTES_MIN: usize = 4 << 20;
const PARTS_PER_BYTE: usize = 8;

/// Bytes that the parts of a message may cost at most, whatever its length.
const PARTS_BYTES_MAX: usize = 64 << 20;

/// Nesting depth of messages at most: prost refuses deeper ones.
const DEPTH_MAX: usize = 100;

/// Shape of a message: its fields.
struct Shape {
    name: &'static str,
    parts: &'static [Part],
}

struct Part {
    number: u32,
    inner: Inner,
    /// Bytes that each occurrence costs, beside those of the enclosing message.
    cost: usize,
}

#[derive(Clone, Copy)]
enum Inner {
    /// A message, by the position of its shape in `SHAPES`.
    Message(usize),
    /// Text or bytes, whose content takes no more than the received bytes.
    Opaque,
    /// A number, or a packed list of numbers, each of which may be one byte long.
    Number,
}

/// Codec that bounds the memory of a decoded message, by the cost of its parts.
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decoder that refuses a message whose parts would cost too much memory.
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buf.chunk();
        if message.len() != buf.remaining() {
            return Err(Status::internal("a message that is not in one piece"));
        }
        check::<U>(message)?;
        U::decode(buf).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// Refuses an encoded message whose parts would cost too much.
fn check<U: Name>(message: &[u8]) -> Result<(), Status> {
    if message.len() <= UNSEEN_BYTES_MAX {
        return Ok(());
    }
    let most = message.len().saturating_mul(PARTS_PER_BYTE).saturating_add(PARTS_BYTES_MIN);
    let most = most.min(PARTS_BYTES_MAX);
    let mut walk = Walk { left: most };
    let place = SHAPES.binary_search_by(|shape| shape.name.cmp(&U::full_name()[..]));
    let place = place.map_err(|_| Status::internal("a message of an unknown shape"))?;
    match walk.message(message, &SHAPES[place], 0) {
        Err(Stop::TooMuch) => Err(Status::invalid_argument(format!(
            "a message of {} bytes has too many parts: they would take more than {most} bytes",
            message.len()
        ))),
        // Prost reports malformed messages itself.
        Ok(()) | Err(Stop::Malformed) => Ok(()),
    }
}

/// A walk over an encoded message.
struct Walk {
    /// Bytes that parts may still cost.
    left: usize,
}

enum Stop {
    TooMuch,
    Malformed,
}

impl Walk {
    fn message(&mut self, mut bytes: &[u8], shape: &Shape, depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Malformed);
        }
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).map_err(|_| Stop::Malformed)?;
            let content = content(&mut bytes, key & 7, number, depth)?;
            let Some(part) = shape.parts.iter().find(|part| part.number == number) else {
                continue;
            };
            let items = match (part.inner, content) {
                (Inner::Number, Some(packed)) => packed.len(),
                _ => 1,
            };
            let cost = part.cost.saturating_mul(items);
            self.left = self.left.checked_sub(cost).ok_or(Stop::TooMuch)?;
            if let (Inner::Message(place), Some(inner)) = (part.inner, content) {
                self.message(inner, &SHAPES[place], depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Passes over a field; returns its bytes if it has a length.
fn content<'a>(
    bytes: &mut &'a [u8],
    wire_type: u64,
    number: u32,
    depth: usize,
) -> Result<Option<&'a [u8]>, Stop> {
    match wire_type {
        0 => varint(bytes).map(|_| None),
        1 => take(bytes, 8).map(|_| None),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| Stop::Malformed)?;
            take(bytes, length).map(Some)
        }
        3 => skip_group(bytes, number, depth).map(|()| None),
        5 => take(bytes, 4).map(|_| None),
        _ => Err(Stop::Malformed),
    }
}

/// Passes over a group, as prost does. No message here has groups.
fn skip_group(bytes: &mut &[u8], number: u32, depth: usize) -> Result<(), Stop> {
    if depth > DEPTH_MAX {
        return Err(Stop::Malformed);
    }
    loop {
        let key = varint(bytes)?;
        let inner = u32::try_from(key >> 3).map_err(|_| Stop::Malformed)?;
        match key & 7 {
            4 if inner == number => return Ok(()),
            wire_type => content(bytes, wire_type, inner, depth + 1)?,
        };
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Stop> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(Stop::Malformed)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Stop::Malformed)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Stop> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Stop::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::v1;

    fn judged<U: Message + Name>(message: &U) -> Result<(), Status> {
        check::<U>(&message.encode_to_vec())
    }

    #[test]
    fn every_message_has_a_shape_and_its_parts_are_sized_like_prosts() {
        assert!(SHAPES.is_sorted_by_key(|shape| shape.name));
        let cost = |message: &str, number| {
            let shape = SHAPES.iter().find(|shape| shape.name == message).unwrap();
            shape.parts.iter().find(|part| part.number == number).unwrap().cost
        };
        for (stated, real) in [
            (cost("rangedb.v1.Requests", 1), size_of::<v1::Request>()),
            (cost("rangedb.v1.Responses", 1), size_of::<v1::Response>()),
            (cost("rangedb.v1.RaftMessages", 4), size_of::<v1::RaftEnvelope>()),
            (cost("rangedb.v1.CommitOneRange", 3), size_of::<v1::Operation>()),
            (cost("rangedb.v1.ScanReply", 1), size_of::<v1::KeyValue>()),
        ] {
            // The table includes the spare room of a growing list; padding makes a difference of a
            // few bytes.
            assert!((real..=4 * real).contains(&stated), "{stated} for {real}");
        }
    }

    #[test]
    fn millions_of_empty_parts_are_refused() {
        let requests = v1::Requests { requests: vec![v1::Request::default(); 500_000] };
        let refused = judged(&requests).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let batch = v1::BatchRequest {
            operations: vec![v1::Operation::default(); 1_000_000],
            ..Default::default()
        };
        assert!(judged(&batch).is_err());
        let read = v1::PointRead { pass_locks_of: vec![0; 8 << 20], ..Default::default() };
        assert!(judged(&read).is_err());
        let keys = v1::RollbackKeys { start_ts: 1, keys: vec![Bytes::new(); 2_000_000] };
        assert!(judged(&keys).is_err());
        let inside = v1::Request {
            body: Some(v1::request::Body::Forwarded(Box::new(v1::Request {
                body: Some(v1::request::Body::PointRead(read)),
                ..Default::default()
            }))),
            ..Default::default()
        };
        assert!(judged(&inside).is_err());
    }

    #[test]
    fn the_largest_messages_that_are_meant_pass() {
        let delete = |at: usize| {
            let delete = v1::Delete { key: at.to_string().into() };
            v1::Operation { body: Some(v1::operation::Body::Delete(delete)) }
        };
        let operations = (0..16 * 1024).map(delete).collect();
        assert!(judged(&v1::BatchRequest { operations, ..Default::default() }).is_ok());
        let requests = (1..=4 * 1024).map(|id| v1::Request { id, ..Default::default() }).collect();
        assert!(judged(&v1::Requests { requests }).is_ok());
        let row = v1::KeyValue { key: "k".into(), mod_ts: 1 << 60, ..Default::default() };
        let page = v1::ScanReply { kvs: vec![row; 16 * 1024], ..Default::default() };
        let body = Some(v1::response::Body::Scan(page));
        let response = v1::Response { id: 1, body };
        assert!(judged(&v1::Responses { responses: vec![response; 2] }).is_ok());
        let value = Bytes::from(vec![b'x'; 4 << 20]);
        assert!(judged(&v1::PutRequest { value, ..Default::default() }).is_ok());
    }

    #[test]
    fn what_is_no_message_is_left_to_the_decoder() {
        for byte in [0x00, 0x0b, 0x7f, 0x80, 0xff] {
            assert!(check::<v1::Requests>(&vec![byte; 10_000]).is_ok());
        }
    }
}
