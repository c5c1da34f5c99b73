//! Messages between nodes and clients: every message of `proto/`, and errors in the details of a
//! gRPC status.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use rangedb_client::SuspendedTransaction;
use rangedb_client::status::{from_status, to_status};
use rangedb_proto::{RangeDescriptorExt as _, Timestamp, prefix_end, v1};
use tonic::{Code, Status};

use crate::allocation::bounded;
use crate::mutate::{cases, input};

/// Maximum memory, as a multiple of the input. The worst input is a list of empty messages. Each
/// takes two bytes on the wire. In memory, each takes as much as the largest message that stands in
/// a list, twice while the vector grows.
const TIMES: usize = 512;

/// Length of a list in the worst input.
const LIST_ITEMS: usize = 4096;

/// Highest number of a field in the largest message.
const FIELDS_MAX: u8 = 15;

fn decode<M: Message + Default>(bytes: &[u8]) -> bool {
    bounded(bytes.len(), TIMES, || M::decode(bytes).is_ok())
}

type Decode = fn(&[u8]) -> bool;

macro_rules! decoders {
    ($($message:ident),* $(,)?) => { [$((stringify!($message), decode::<v1::$message> as Decode)),*] };
}

/// Every message that is decoded by itself, off the wire or from a stored value. Nested messages
/// are decoded with it.
const DECODERS: &[(&str, Decode)] = &decoders![
    // Node: requests and responses hold all others of node.proto and command.proto.
    Request,
    Requests,
    Response,
    Responses,
    // Kv.
    GetRequest,
    GetResponse,
    PutRequest,
    PutResponse,
    DeleteRequest,
    DeleteResponse,
    RangeRequest,
    RangeResponse,
    BatchRequest,
    BatchResponse,
    // Peer.
    RaftMessages,
    RaftSummary,
    SnapshotChunk,
    SnapshotReceipt,
    BootstrapRequest,
    BootstrapReply,
    // Values under `_/`, details of errors, replies of the machine.
    NodeDescriptor,
    RangeDescriptor,
    ConfigValue,
    Error,
    CommandReply,
];

fn messages() -> Vec<Vec<u8>> {
    let node = v1::NodeDescriptor {
        node_id: 3,
        peer_address: "localhost:8080".into(),
        client_address: "localhost:8081".into(),
        status_address: "localhost:8085".into(),
        directory_id: 77,
        ..Default::default()
    };
    let descriptor = v1::RangeDescriptor {
        range_id: 1,
        start_key: "a".into(),
        replicas: vec![v1::Replica { replica_id: 1, node_id: 1, role: 1 }],
        next_replica_id: 2,
        ..Default::default()
    };
    let report = v1::RangeReport { descriptor: Some(descriptor.clone()), ..Default::default() };
    let heartbeat = v1::Heartbeat {
        node: Some(node.clone()),
        ranges: vec![report.clone(), report],
        ..Default::default()
    };
    let body = Some(v1::request::Body::Heartbeat(heartbeat));
    let request = v1::Request { id: 1, timeout_ms: 100, body, ..Default::default() };
    let kv = v1::KeyValue { key: "k".into(), value: vec![1; 40].into(), ..Default::default() };
    let reply = v1::ScanReply { kvs: vec![kv.clone(), kv.clone()], ..Default::default() };
    let response = v1::Response { id: 1, body: Some(v1::response::Body::Scan(reply)) };
    let envelope = v1::RaftEnvelope {
        range_id: 1,
        body: Some(v1::raft_envelope::Body::Message(vec![8; 30].into())),
        ..Default::default()
    };
    let record = v1::SnapshotRecord { key: "k".into(), value: "v".into() };
    let data = v1::SnapshotData { column_family: 1, records: vec![record; 3], crc32: 9 };
    let formation = v1::Formation {
        cluster_id: 5,
        nodes: vec![node],
        replication_factor: 3,
        split_keys: vec!["/m".to_owned()],
        founded_unix_ms: 1_780_000_000_000,
    };
    vec![
        v1::Requests { requests: vec![request.clone(), request] }.encode_to_vec(),
        v1::Responses { responses: vec![response] }.encode_to_vec(),
        v1::RaftMessages { envelopes: vec![envelope; 2], ..Default::default() }.encode_to_vec(),
        v1::SnapshotChunk { body: Some(v1::snapshot_chunk::Body::Data(data)) }.encode_to_vec(),
        v1::BootstrapReply { accepted: Some(formation), ..Default::default() }.encode_to_vec(),
        v1::RangeResponse { kvs: vec![kv; 2] }.encode_to_vec(),
        descriptor.encode_to_vec(),
    ]
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn messages_of_any_bytes_are_bounded(bytes in input(messages())) {
        for (_, decode) in DECODERS {
            decode(&bytes);
        }
    }

    #[test]
    fn descriptors_of_any_bytes_answer(bytes in input(messages()), key in any::<Vec<u8>>()) {
        let Ok(range) = v1::RangeDescriptor::decode(&bytes[..]) else { return Ok(()) };
        range.contains(&key);
        range.covers(&key, &range.end_key);
        range.replica(range.next_replica_id);
        range.replica_on(0);
        range.in_joint_change();
        let end = prefix_end(&key);
        assert!(end.is_empty() || end > key);
    }

    #[test]
    fn timestamps_come_apart_and_together_and_no_time_is_above_the_last(number in any::<u64>()) {
        let timestamp = Timestamp(number);
        let of_millis = Timestamp::from_millis(timestamp.millis());
        prop_assert!(of_millis <= Timestamp::MAX);
        if timestamp <= Timestamp::MAX {
            prop_assert_eq!(of_millis.0 + timestamp.logical(), number);
        }
    }

    #[test]
    fn a_status_with_any_details_says_something(
        details in input(statuses()),
        code in 0..20_i32,
        message in ".{0,40}",
    ) {
        let bytes = Bytes::from(details.clone());
        let status = Status::with_details(Code::from_i32(code), message, bytes);
        let error = bounded(details.len() + 64, TIMES, || from_status(&status));
        // An error of an unknown kind is still an error.
        prop_assert_ne!(to_status(&error).code(), Code::Ok);
    }

    #[test]
    fn suspended_transactions_of_any_bytes_are_refused_or_come_back(
        body in input(suspended()),
        whole in any::<bool>(),
    ) {
        let bytes = if whole { with_head(&body) } else { body };
        let taken_up = bounded(bytes.len(), TIMES, || SuspendedTransaction::from_bytes(&bytes));
        if let Ok(transaction) = taken_up {
            let again = SuspendedTransaction::from_bytes(&transaction.to_bytes()).unwrap();
            prop_assert_eq!(again, transaction);
        }
    }
}

fn statuses() -> Vec<Vec<u8>> {
    let conflict = v1::Conflict { condition_index: 1, key: "k".into(), actual: None };
    let error = v1::Error::new(v1::error::Kind::Conflict(conflict), "it does not hold");
    let errors = [error, v1::Error::invalid("key", "too long"), v1::Error::too_busy(5, "later")];
    errors.iter().map(|error| to_status(error).details().to_vec()).collect()
}

/// Builds a suspended transaction with this body and a right head.
fn with_head(body: &[u8]) -> Vec<u8> {
    [b"rangedb-txn\x01", &crc32fast::hash(body).to_le_bytes()[..], body].concat()
}

/// Bodies by their fields: numbers 1 to 8, then lists of writes, spans and locks, and a primary.
fn suspended() -> Vec<Vec<u8>> {
    let put = v1::Put { key: "k".into(), value: "v".into(), lease_id: 1 };
    let write = v1::Operation { body: Some(v1::operation::Body::Put(put)) }.encode_to_vec();
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let head = b"\x09\x05\0\0\0\0\0\0\0\x10\xc8\x01\x30\x01\x38\xe8\x07\x40\x05";
    let lock = [field(1, b"k"), b"\x10\x07".to_vec()].concat();
    let span = [field(1, b"a"), field(2, b"b")].concat();
    let writes = [&head[..], &field(9, &write)].concat();
    let all = [&writes[..], &field(10, &span), &field(11, &lock), &field(12, b"k")].concat();
    let at = b"\x09\x05\0\0\0\0\0\0\0\x10\xc8\x01\x20\x01\x28\x01".to_vec();
    vec![writes, all, at]
}

#[test]
fn a_suspended_transaction_is_known_by_its_head() {
    let taken_up = suspended()
        .iter()
        .filter(|body| SuspendedTransaction::from_bytes(&with_head(body)).is_ok())
        .count();
    assert!(taken_up > 0, "no sample is a transaction");
}

#[test]
fn lists_of_empty_messages_are_bounded() {
    for (name, decode) in DECODERS {
        for field in 1..=FIELDS_MAX {
            let bytes = [field << 3 | 2, 0].repeat(LIST_ITEMS);
            // Some kinds of field refuse such a list. The others must stay within the bound.
            let _ = std::panic::catch_unwind(|| decode(&bytes))
                .unwrap_or_else(|_| panic!("field {field} of {name} takes too much memory"));
        }
    }
}
