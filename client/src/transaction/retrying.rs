//! [`Client::transaction`]: a transaction that begins again after a conflict.

use std::future::Future;

use super::{Transaction, TransactionOptions};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::Result;

/// How often a transaction is begun at most. With pauses that grow to half a second, that is about a
/// quarter of a minute of losing against others; more would hide that the keys are too contended.
pub const TRANSACTION_ATTEMPTS_MAX: usize = 32;

impl Client {
    /// Runs the closure in a serializable transaction and commits it. If another transaction is in
    /// the way, everything is done anew, at most [`TRANSACTION_ATTEMPTS_MAX`] times: the closure must
    /// have no effect but through the transaction.
    ///
    /// ```no_run
    /// # async fn run(client: rangedb_client::Client) -> rangedb_client::Result<()> {
    /// client
    ///     .transaction(|txn| async move {
    ///         let seats = txn.get("/seats").await?.map_or(0, |row| row.value.len());
    ///         txn.put("/seats", vec![b'.'; seats + 1]).await
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What the closure returned, unless that is a conflict; nothing was written then. After
    /// [`crate::Error::Undetermined`], which is never tried again, it may be.
    pub async fn transaction<T, F, R>(&self, run: F) -> Result<T>
    where
        F: Fn(Transaction) -> R,
        R: Future<Output = Result<T>>,
    {
        self.transaction_with(TransactionOptions::default(), run).await
    }

    /// As [`Client::transaction`], with options.
    pub async fn transaction_with<T, F, R>(&self, options: TransactionOptions, run: F) -> Result<T>
    where
        F: Fn(Transaction) -> R,
        R: Future<Output = Result<T>>,
    {
        let mut backoff = Backoff::new();
        for attempts_left in (0..TRANSACTION_ATTEMPTS_MAX).rev() {
            match self.attempt(&options, &run).await {
                Err(error) if error.is_transaction_conflict() && attempts_left > 0 => {
                    tracing::debug!(%error, attempts_left, "a transaction begins again");
                    self.sender.metrics.restarts.add(1);
                }
                outcome => return outcome,
            }
            let net = &self.sender.net;
            net.sleep(backoff.wait(&**net)).await;
        }
        unreachable!("the last attempt returns its outcome")
    }

    async fn attempt<T, F, R>(&self, options: &TransactionOptions, run: &F) -> Result<T>
    where
        F: Fn(Transaction) -> R,
        R: Future<Output = Result<T>>,
    {
        let transaction = self.begin(options.clone()).await?;
        let handle = Transaction { inner: transaction.inner.clone(), managed: true };
        match run(handle).await {
            Ok(value) => transaction.commit().await.map(|_| value),
            Err(error) => {
                // An error while undoing must not hide why: locks that are left expire.
                if let Err(error) = transaction.rollback().await {
                    tracing::debug!(%error, "a failed transaction was not rolled back");
                }
                Err(error)
            }
        }
    }
}
