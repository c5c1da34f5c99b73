//! RangeDB under load, through the SDK.

use bytes::Bytes;
use futures::future::BoxFuture;
use rangedb_client::{Client, Config, Error, KeyValue, PutOptions, Test};

use crate::Failure;
use crate::load::{Attempt, CounterValue, Target, Way};

pub struct RangeDb(pub Client);

impl RangeDb {
    pub async fn connect(endpoints: &[String]) -> Result<Self, Failure> {
        Ok(RangeDb(Client::connect(Config::new(endpoints))?))
    }
}

impl Target for RangeDb {
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

    fn can_increment(&self, _way: Way) -> bool {
        true
    }

    fn counter(&self, _worker: usize, key: Bytes) -> BoxFuture<'_, Result<CounterValue, Failure>> {
        Box::pin(async move { seen(self.0.get(key).await?.as_ref()) })
    }

    fn add_if(
        &self,
        _worker: usize,
        key: Bytes,
        last: CounterValue,
        way: Way,
    ) -> BoxFuture<'_, Result<Attempt, Failure>> {
        Box::pin(async move {
            let unchanged = match way {
                Way::Swap if last.mark > 0 => Test::Value(last.value.to_string().into()),
                _ => Test::Version(last.mark),
            };
            let conditions = vec![unchanged];
            let options = PutOptions { conditions, ..PutOptions::default() };
            let value = last.value + 1;
            match self.0.put_with(key, value.to_string(), options).await {
                Ok(_) => Ok(Attempt::Added(CounterValue { value, mark: last.mark + 1 })),
                Err(Error::Conflict { actual, .. }) => Ok(Attempt::Lost(seen(actual.as_deref())?)),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn add_in_transaction(
        &self,
        _worker: usize,
        key: Bytes,
        locked: bool,
    ) -> BoxFuture<'_, Result<bool, Failure>> {
        Box::pin(async move {
            let added = self.0.transaction(|txn| {
                let key = key.clone();
                async move {
                    if locked {
                        let row = txn.get_for_update(key.clone()).await?;
                        let value = row.as_ref().map_or(Ok(0), number)?;
                        return txn.put(key, (value + 1).to_string()).await;
                    }
                    let row = txn.get(key.clone()).await?;
                    let value = row.as_ref().map_or(Ok(0), number)?;
                    let expected = row.map(|row| row.value);
                    txn.compare_and_swap(key, expected, (value + 1).to_string()).await
                }
            });
            match added.await {
                Ok(()) => Ok(true),
                Err(error) if error.is_transaction_conflict() => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }
}

fn seen(row: Option<&KeyValue>) -> Result<CounterValue, Failure> {
    let Some(row) = row else { return Ok(CounterValue::default()) };
    Ok(CounterValue { value: number(row)?, mark: row.version })
}

fn number(row: &KeyValue) -> Result<u64, Error> {
    let text = std::str::from_utf8(&row.value).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::Invalid {
        argument: "counter".to_owned(),
        message: format!("{row:?} holds no number"),
    })
}
