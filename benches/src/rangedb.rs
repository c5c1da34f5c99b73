//! RangeDB under load, through the SDK.

use bytes::Bytes;
use futures::future::BoxFuture;
use rangedb_client::{Client, Config};

use crate::Failure;
use crate::load::Target;

pub struct RangeDb(pub Client);

impl RangeDb {
    pub async fn connect(endpoints: &[String]) -> Result<Self, Failure> {
        Ok(RangeDb(Client::connect(Config::new(endpoints))?))
    }
}

impl Target for RangeDb {
    fn name(&self) -> &'static str {
        "rangedb"
    }

    fn put(&self, _worker: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.0.put(key, value).await?;
            Ok(())
        })
    }

    fn get(&self, _worker: usize, key: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let found = self.0.get(key).await?;
            found.map(drop).ok_or_else(|| "a key that was written is not there".into())
        })
    }
}
