//! Conversion between [`v1::Error`] and a gRPC status. Unary calls and streams of the public API
//! fail with a status. Its code is for every gRPC client. Its details hold the whole error for
//! clients that know the type, packed as the standard `google.rpc.Status`.

use bytes::Bytes;
use prost::Message;
use rangedb_proto::v1::{self, error::Kind};
use tonic::{Code, Status};

const ERROR_TYPE_URL: &str = "type.googleapis.com/rangedb.v1.Error";

/// Bytes of a status's details at most. Proxies commonly refuse more than 8 KiB of headers, where
/// the details stand encoded in base64.
const DETAILS_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a status's message at most. A key in the message may be long, and longer with its
/// escapes. A client that gets too long a header takes the connection for broken and the outcome
/// for unknown.
const MESSAGE_BYTES_MAX: usize = 1024;

/// `google.rpc.Status`, by its public definition.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Converts an error to the status to answer with.
pub fn to_status(error: &v1::Error) -> Status {
    let error = &with_short_message(error);
    let code = code_of(error);
    let details = details_of(error);
    if details.len() > DETAILS_BYTES_MAX {
        // Such as a conflict with a large value: name the key, and leave out the value.
        let details = details_of(&without_payload(error));
        if details.len() > DETAILS_BYTES_MAX {
            return Status::new(code, &error.message);
        }
        return Status::with_details(code, &error.message, details.into());
    }
    Status::with_details(code, &error.message, details.into())
}

/// Returns the error that a status carries, or derives one from the code of a foreign status.
pub fn from_status(status: &Status) -> v1::Error {
    let details = RpcStatus::decode(status.details()).unwrap_or_default().details;
    let ours = details.iter().filter(|any| any.type_url == ERROR_TYPE_URL);
    ours.filter_map(|any| v1::Error::decode(&any.value[..]).ok())
        .next()
        .unwrap_or_else(|| from_code(status))
}

fn details_of(error: &v1::Error) -> Vec<u8> {
    let any = Any { type_url: ERROR_TYPE_URL.to_owned(), value: error.encode_to_vec() };
    let code = code_of(error) as i32;
    RpcStatus { code, message: error.message.clone(), details: vec![any] }.encode_to_vec()
}

fn with_short_message(error: &v1::Error) -> v1::Error {
    let mut error = error.clone();
    if error.message.len() > MESSAGE_BYTES_MAX {
        error.message.truncate(error.message.floor_char_boundary(MESSAGE_BYTES_MAX));
        error.message.push('…');
    }
    error
}

fn without_payload(error: &v1::Error) -> v1::Error {
    let mut error = error.clone();
    match &mut error.kind {
        Some(Kind::Conflict(conflict)) => {
            if let Some(actual) = &mut conflict.actual {
                actual.value = Bytes::new();
            }
        }
        Some(Kind::StaleEpoch(stale)) => stale.descriptors.clear(),
        _ => {}
    }
    error
}

fn code_of(error: &v1::Error) -> Code {
    match &error.kind {
        Some(Kind::InvalidArgument(_) | Kind::TooLarge(_)) => Code::InvalidArgument,
        Some(Kind::PermissionDenied(_)) => Code::PermissionDenied,
        Some(Kind::NotFound(_)) => Code::NotFound,
        Some(Kind::FailedPrecondition(_)) => Code::FailedPrecondition,
        // The client has to read again before it retries.
        Some(
            Kind::Conflict(_)
            | Kind::KeyLocked(_)
            | Kind::WriteConflict(_)
            | Kind::TransactionAborted(_)
            | Kind::Deadlock(_),
        ) => Code::Aborted,
        Some(Kind::TooBusy(_) | Kind::DiskFull(_)) => Code::ResourceExhausted,
        Some(Kind::TooOld(_)) => Code::OutOfRange,
        Some(Kind::Corruption(_)) => Code::DataLoss,
        Some(Kind::DeadlineExceeded(_)) => Code::DeadlineExceeded,
        Some(
            Kind::Unavailable(_)
            | Kind::NotLeader(_)
            | Kind::StaleEpoch(_)
            | Kind::RangeNotFound(_),
        ) => Code::Unavailable,
        // Not Unavailable, which gRPC clients retry blindly.
        Some(Kind::Undetermined(_)) | None => Code::Unknown,
    }
}

fn from_code(status: &Status) -> v1::Error {
    let message = status.message();
    match status.code() {
        Code::InvalidArgument | Code::Unimplemented => v1::Error::invalid("request", message),
        Code::PermissionDenied | Code::Unauthenticated => v1::Error::permission_denied(message),
        Code::NotFound => v1::Error::not_found(message),
        Code::FailedPrecondition => v1::Error::failed_precondition(message),
        Code::ResourceExhausted => v1::Error::too_busy(0, message),
        // A broken connection gives Unavailable or Cancelled too, perhaps after the request had
        // arrived.
        _ => v1::Error::undetermined(format!("{}: {message}", status.code().description())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(value: Vec<u8>) -> v1::Error {
        let key = Bytes::from_static(b"k");
        let actual = v1::KeyValue {
            key: key.clone(),
            value: value.into(),
            version: 3,
            ..Default::default()
        };
        let conflict = v1::Conflict { condition_index: 1, key, actual: Some(actual) };
        v1::Error::new(Kind::Conflict(conflict), "no")
    }

    #[test]
    fn an_error_survives_the_way_through_a_status() {
        let all = [
            conflict(b"v".to_vec()),
            v1::Error::too_busy(7, "wait"),
            v1::Error::undetermined("?"),
            v1::Error::invalid("key", "empty"),
        ];
        for error in all {
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }

    #[test]
    fn a_large_value_stays_out_of_the_headers() {
        let status = to_status(&conflict(vec![0; 1 << 20]));
        assert!(status.details().len() <= DETAILS_BYTES_MAX);
        assert_eq!(from_status(&status), conflict(Vec::new()));
    }

    #[test]
    fn a_long_key_makes_no_head_that_is_too_long_to_be_read() {
        let kind = Kind::Conflict(v1::Conflict { key: vec![1; 8192].into(), ..Default::default() });
        let error = v1::Error::new(kind, "\u{1}".repeat(8192));
        let status = to_status(&error);
        assert!(status.message().len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        assert!(status.details().len() <= DETAILS_BYTES_MAX);
        assert_eq!(status.code(), Code::Aborted);
    }

    #[test]
    fn a_broken_connection_is_not_taken_for_a_refusal() {
        let error = from_status(&Status::unavailable("connection reset"));
        assert!(matches!(error.kind, Some(Kind::Undetermined(_))));
    }
}
