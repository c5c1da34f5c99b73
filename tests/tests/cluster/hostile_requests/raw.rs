//! Calls of any method with any bytes as messages.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Maximum time of a call: some calls end only when their caller does.
const CALL_TIME: Duration = Duration::from_secs(1);

/// Number of messages of an answer that are read before the caller goes away.
const ANSWERS_READ: usize = 3;

/// Codec that takes messages as they are.
#[derive(Default)]
struct AnyBytes;

impl Codec for AnyBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AnyBytes;
    type Decoder = AnyBytes;

    fn encoder(&mut self) -> AnyBytes {
        AnyBytes
    }

    fn decoder(&mut self) -> AnyBytes {
        AnyBytes
    }
}

impl Encoder for AnyBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for AnyBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends the messages to the method and reads the beginning of its answer. True if the node
/// understood the call and answered without an error. Every answer is allowed: a node only has to
/// go on.
pub async fn call(channel: Channel, path: &str, messages: Vec<Bytes>) -> bool {
    let calling = async {
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(futures::stream::iter(messages));
        request.set_timeout(CALL_TIME);
        let path = path.parse().expect("a method has a path");
        let answers = client.streaming(request, path, AnyBytes).await?.into_inner();
        let mut answers = answers.take(ANSWERS_READ);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok::<_, Status>(())
    };
    tokio::time::timeout(CALL_TIME, calling).await.is_ok_and(|answer| answer.is_ok())
}
