//! The `Kv` service, which serves every client. This node's own client finds the nodes that have
//! the keys, so any node answers any request.

mod convert;
mod timeout;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use prost::Message;
use rangedb_client::status::to_status;
use rangedb_client::{Client, DeleteOptions, Error, PutOptions, RangeOptions, RangeStream};
use rangedb_proto::v1;
use rangedb_proto::v1::kv_server::Kv;
use rangedb_proto::{KEY_BYTES_MAX, Timestamp, VALUE_BYTES_MAX};
use rangedb_txn::PREVIOUS_BYTES_MAX;
use tonic::{Request, Response, Status};

use super::ServiceState;
use super::metered::with_memory;
use super::origin::origin;
use super::traced::{self, traced};
use crate::memory::Taken;

/// Bytes of rows after which a page of a scan is sent, and the maximum number of rows in a page.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_ROWS: usize = 1000;

pub(super) struct KvService(pub Arc<ServiceState>);

/// Bytes that are taken for the largest row while the size of the row is unknown.
const ROW_BYTES: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + 1024;

/// Bytes of a scan in flight: one page being sent and two being fetched, with room for the cost of
/// rows beside their bytes.
const RANGE_BYTES: usize = 4 * PAGE_BYTES;

/// Time for which a call without a timeout waits for memory. Unread answers of other calls on its
/// connection may hold that memory.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(5);

impl KvService {
    /// Takes memory for an answer to the caller.
    async fn room<T>(&self, request: &Request<T>, bytes: usize) -> Result<Option<Taken>, Status> {
        if bytes == 0 {
            return Ok(None);
        }
        let caller = origin(request)?.caller;
        let net = self.0.serving()?.node.net();
        let most = timeout::of(request.metadata()).unwrap_or(MEMORY_WAIT_MAX);
        let room = tokio::time::timeout(most, caller.room(bytes, net)).await;
        match room {
            Ok(room) => room.map(Some).map_err(|error| to_status(&error)),
            Err(_) => Err(to_status(&caller.no_room())),
        }
    }

    /// Returns the node's client, with the timeout that the caller gives the request.
    fn client<T>(&self, request: &Request<T>) -> Result<Client, Status> {
        let gateway = self.0.serving()?.node.gateway();
        Ok(match timeout::of(request.metadata()) {
            Some(timeout) => gateway.with_timeout(timeout),
            None => gateway.clone(),
        })
    }
}

fn status(error: Error) -> Status {
    to_status(&error.into())
}

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStream = Pin<Box<dyn Stream<Item = Result<v1::RangeResponse, Status>> + Send>>;

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let room = self.room(&request, ROW_BYTES).await?;
        let v1::GetRequest { key, read_ts } = request.into_inner();
        let reading = async {
            match read_ts {
                0 => client.get(key).await,
                at => client.get_at(key, Timestamp(at)).await,
            }
        };
        let kv = traced(trace, "get", reading).await;
        let kv = kv.map_err(status)?.map(v1::KeyValue::from);
        Ok(answer(v1::GetResponse { kv }, room))
    }

    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let asked = request.get_ref();
        let room = self.room(&request, told(asked.return_previous, &asked.conditions)).await?;
        let put = request.into_inner();
        convert::without_lease(put.lease_id)?;
        let options = PutOptions {
            conditions: convert::tests(put.conditions)?,
            return_previous: put.return_previous,
        };
        let writing = client.put_with(put.key, put.value, options);
        let written = traced(trace, "put", writing).await.map_err(status)?;
        let commit_ts = written.commit_ts.0;
        let previous = written.previous.map(v1::KeyValue::from);
        Ok(answer(v1::PutResponse { commit_ts, previous }, room))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let asked = request.get_ref();
        let room = self.room(&request, told(asked.return_previous, &asked.conditions)).await?;
        let delete = request.into_inner();
        let options = DeleteOptions {
            conditions: convert::tests(delete.conditions)?,
            return_previous: delete.return_previous,
        };
        let deleting = client.delete_with(delete.key, options);
        let deleted = traced(trace, "delete", deleting).await.map_err(status)?;
        let response = v1::DeleteResponse {
            commit_ts: deleted.commit_ts.0,
            deleted: deleted.existed.into(),
            previous: deleted.previous.map(v1::KeyValue::from),
        };
        Ok(answer(response, room))
    }

    async fn delete_range(
        &self,
        request: Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::DeleteRangeResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let v1::DeleteRangeRequest { start_key, end_key } = request.into_inner();
        let deleting = client.delete_range(start_key, end_key);
        let deleted = traced(trace, "delete_range", deleting).await.map_err(status)?;
        Ok(Response::new(v1::DeleteRangeResponse {
            deleted: deleted.deleted,
            commit_ts: deleted.commit_ts.0,
            commits: deleted.commits,
        }))
    }

    async fn range(
        &self,
        request: Request<v1::RangeRequest>,
    ) -> Result<Response<Self::RangeStream>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let room = self.room(&request, RANGE_BYTES).await?;
        let asked = request.into_inner();
        let mut options = RangeOptions::new(asked.start_key, asked.end_key);
        if asked.limit != 0 {
            options = options.limit(asked.limit);
        }
        if asked.reverse {
            options = options.reverse();
        }
        if asked.keys_only {
            options = options.keys_only();
        }
        if asked.read_ts != 0 {
            options = options.at(Timestamp(asked.read_ts));
        }
        // The stream holds the memory for as long as it lives.
        let start = (Some(client.range(options)), room);
        let pages = stream::unfold(start, move |(rows, room)| async move {
            let (page, rows) = traced(trace, "range", next_page(rows)).await?;
            Some((page, (rows, room)))
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn batch(
        &self,
        request: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let asked = request.get_ref();
        let bytes = match asked.return_previous {
            true => PREVIOUS_BYTES_MAX,
            false => told(false, &asked.conditions),
        };
        let room = self.room(&request, bytes).await?;
        let batch = convert::batch(request.into_inner())?;
        let committed = traced(trace, "batch", client.batch(batch)).await.map_err(status)?;
        let result = |result: rangedb_client::OperationResult| v1::OperationResult {
            deleted: result.deleted,
            previous: result.previous.map(v1::KeyValue::from),
        };
        let commit_ts = committed.commit_ts.0;
        let results = committed.results.into_iter().map(result).collect();
        Ok(answer(v1::BatchResponse { commit_ts, results }, room))
    }
}

/// Returns the maximum bytes of the answer to a write of one key: the value that it replaced, or
/// the value that a condition met.
fn told(previous: bool, conditions: &[v1::Condition]) -> usize {
    if previous || !conditions.is_empty() { ROW_BYTES } else { 0 }
}

/// Returns an answer that holds the memory it needs, and gives the rest back.
fn answer<T: Message>(message: T, mut room: Option<Taken>) -> Response<T> {
    if let Some(room) = &mut room {
        room.shrink_to(message.encoded_len() as u64);
    }
    with_memory(Response::new(message), room)
}

type Page = Result<v1::RangeResponse, Status>;

/// Gathers rows into a page. `None` at the end, and after an error.
async fn next_page(rows: Option<RangeStream>) -> Option<(Page, Option<RangeStream>)> {
    let mut rows = rows?;
    let mut kvs = Vec::new();
    let mut bytes = 0;
    while bytes < PAGE_BYTES && kvs.len() < PAGE_ROWS {
        match rows.next().await {
            Some(Ok(row)) => {
                bytes += row.key.len() + row.value.len();
                kvs.push(row.into());
            }
            // The rows before the error are right and in order. The caller cannot use them, because
            // the result is incomplete.
            Some(Err(error)) => return Some((Err(status(error)), None)),
            None if kvs.is_empty() => return None,
            None => return Some((Ok(v1::RangeResponse { kvs }), None)),
        }
    }
    Some((Ok(v1::RangeResponse { kvs }), Some(rows)))
}
