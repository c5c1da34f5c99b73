//! Conversion of requests from the wire to the client's types.

use rangedb_client::status::to_status;
use rangedb_client::{Batch, Condition, Test};
use rangedb_proto::Timestamp;
use rangedb_proto::v1::{self, condition, operation};
use tonic::Status;

/// Converts conditions on the key that a put or delete names itself.
pub(super) fn tests(conditions: Vec<v1::Condition>) -> Result<Vec<Test>, Status> {
    conditions.into_iter().map(|condition| test(condition.test)).collect()
}

pub(super) fn batch(request: v1::BatchRequest) -> Result<Batch, Status> {
    let mut batch = Batch::new();
    for condition in request.conditions {
        batch = batch.when(Condition::new(condition.key, test(condition.test)?));
    }
    for operation in request.operations {
        batch = match operation.body {
            Some(operation::Body::Put(put)) => {
                without_lease(put.lease_id)?;
                batch.put(put.key, put.value)
            }
            Some(operation::Body::Delete(delete)) => batch.delete(delete.key),
            Some(operation::Body::DeleteRange(delete)) => {
                batch.delete_range(delete.start_key, delete.end_key)
            }
            None => return Err(invalid("operations", "an operation of an unknown kind")),
        };
    }
    Ok(if request.return_previous { batch.return_previous() } else { batch })
}

/// Refuses a lease: there are no leases yet, so a value put under one would stay forever.
pub(super) fn without_lease(lease_id: u64) -> Result<(), Status> {
    match lease_id {
        0 => Ok(()),
        _ => Err(invalid("lease_id", "there are no leases yet; put without one")),
    }
}

fn test(test: Option<condition::Test>) -> Result<Test, Status> {
    Ok(match test {
        Some(condition::Test::Exists(true)) => Test::Exists,
        Some(condition::Test::Exists(false)) => Test::Absent,
        Some(condition::Test::Version(version)) => Test::Version(version),
        Some(condition::Test::ModTs(at)) => Test::ModTs(Timestamp(at)),
        Some(condition::Test::Value(value)) => Test::Value(value),
        None => return Err(invalid("conditions", "a condition of an unknown kind")),
    })
}

fn invalid(argument: &str, message: &str) -> Status {
    to_status(&v1::Error::invalid(argument, message))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_condition_of_an_unknown_kind_is_refused_and_not_taken_for_true() {
        let conditions = vec![v1::Condition::default()];
        assert_eq!(super::tests(conditions.clone()).unwrap_err().code(), Code::InvalidArgument);
        let request = v1::BatchRequest { conditions, ..Default::default() };
        assert_eq!(batch(request).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_put_under_a_lease_is_refused() {
        let put = v1::Put { key: "k".into(), value: "v".into(), lease_id: 7 };
        let operations = vec![v1::Operation { body: Some(operation::Body::Put(put)) }];
        let request = v1::BatchRequest { operations, ..Default::default() };
        let status = batch(request).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("no leases"), "{status}");
        assert!(without_lease(0).is_ok());
    }

    #[test]
    fn an_operation_of_an_unknown_kind_is_refused() {
        let operations = vec![v1::Operation::default()];
        let request = v1::BatchRequest { operations, ..Default::default() };
        assert_eq!(batch(request).unwrap_err().code(), Code::InvalidArgument);
    }
}
