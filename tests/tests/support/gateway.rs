//! One node asked by plain gRPC, as by a client in another language. The node asks the others for
//! what it cannot answer itself.

use bytes::Bytes;
use rangedb_proto::v1::{GetRequest, KeyValue, PutRequest, RangeRequest, kv_client::KvClient};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::wait::{SOON, until};

/// Maximum length of a message: those of a scan's answer are larger than tonic's default.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

#[derive(Clone)]
pub struct Gateway(KvClient<Channel>);

/// Opens a connection for any of the services. Waits until the node accepts it.
pub async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a good address");
    let what = format!("{address} takes connections");
    until(&what, SOON, async || endpoint.connect().await).await
}

impl Gateway {
    pub async fn of(address: &str) -> Gateway {
        let client = KvClient::new(connect(address).await);
        Gateway(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub async fn put(&mut self, key: &str, value: &str) -> Result<u64, Status> {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        let mut request = Request::new(PutRequest { key, value, ..Default::default() });
        request.set_timeout(SOON);
        Ok(self.0.put(request).await?.into_inner().commit_ts)
    }

    pub async fn get(&mut self, key: &str) -> Result<Option<KeyValue>, Status> {
        let mut request = Request::new(GetRequest { key: Bytes::from(key.to_owned()), read_ts: 0 });
        request.set_timeout(SOON);
        Ok(self.0.get(request).await?.into_inner().kv)
    }

    /// Calls `row` for every row of `[start, end)`.
    pub async fn range(
        &mut self,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        mut row: impl FnMut(KeyValue),
    ) -> Result<(), Status> {
        let (start_key, end_key) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        let request = RangeRequest { start_key, end_key, reverse, ..Default::default() };
        let mut pages = self.0.range(request).await?.into_inner();
        while let Some(page) = pages.message().await? {
            page.kvs.into_iter().for_each(&mut row);
        }
        Ok(())
    }
}
