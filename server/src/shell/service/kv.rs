//! The database for every client: this node's own client finds whoever has the keys, so any node
//! answers any request.

mod convert;
mod timeout;

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use rangedb_client::status::to_status;
use rangedb_client::{Client, DeleteOptions, Error, PutOptions, RangeOptions, RangeStream};
use rangedb_proto::Timestamp;
use rangedb_proto::v1;
use rangedb_proto::v1::kv_server::Kv;
use tonic::{Request, Response, Status};

use super::Front;
use super::traced::{self, traced};

/// Bytes of rows after which a page of a scan is sent, and rows after which it is in any case.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_ROWS: usize = 1000;

pub(super) struct KvService(pub Arc<Front>);

impl KvService {
    /// The node's client, with the time that the caller gives the request.
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
        let v1::GetRequest { key, read_ts } = request.into_inner();
        let reading = async {
            match read_ts {
                0 => client.get(key).await,
                at => client.get_at(key, Timestamp(at)).await,
            }
        };
        let kv = traced(trace, "get", reading).await;
        let kv = kv.map_err(status)?.map(v1::KeyValue::from);
        Ok(Response::new(v1::GetResponse { kv }))
    }

    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let put = request.into_inner();
        convert::without_lease(put.lease_id)?;
        let options = PutOptions {
            conditions: convert::tests(put.conditions)?,
            return_previous: put.return_previous,
        };
        let writing = client.put_with(put.key, put.value, options);
        let written = traced(trace, "put", writing).await.map_err(status)?;
        Ok(Response::new(v1::PutResponse {
            commit_ts: written.commit_ts.0,
            previous: written.previous.map(v1::KeyValue::from),
        }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let delete = request.into_inner();
        let options = DeleteOptions {
            conditions: convert::tests(delete.conditions)?,
            return_previous: delete.return_previous,
        };
        let deleting = client.delete_with(delete.key, options);
        let deleted = traced(trace, "delete", deleting).await.map_err(status)?;
        Ok(Response::new(v1::DeleteResponse {
            commit_ts: deleted.commit_ts.0,
            deleted: deleted.existed.into(),
            previous: deleted.previous.map(v1::KeyValue::from),
        }))
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
        let pages = stream::unfold(Some(client.range(options)), move |rows| {
            traced(trace, "range", next_page(rows))
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn batch(
        &self,
        request: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        let (client, trace) = (self.client(&request)?, traced::of(request.metadata()));
        let batch = convert::batch(request.into_inner())?;
        let committed = traced(trace, "batch", client.batch(batch)).await.map_err(status)?;
        let result = |result: rangedb_client::OperationResult| v1::OperationResult {
            deleted: result.deleted,
            previous: result.previous.map(v1::KeyValue::from),
        };
        Ok(Response::new(v1::BatchResponse {
            commit_ts: committed.commit_ts.0,
            results: committed.results.into_iter().map(result).collect(),
        }))
    }
}

type Page = Result<v1::RangeResponse, Status>;

/// Gathers rows into a page. None at the end, and after an error.
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
            // Rows before the error are in order and right, but the caller cannot use an end that
            // is none.
            Some(Err(error)) => return Some((Err(status(error)), None)),
            None if kvs.is_empty() => return None,
            None => return Some((Ok(v1::RangeResponse { kvs }), None)),
        }
    }
    Some((Ok(v1::RangeResponse { kvs }), Some(rows)))
}
