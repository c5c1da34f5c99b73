//! [`Client::transaction`]: a transaction that begins again after a conflict.
//!
//! After a write conflict at a key, the transaction takes its turn there before it begins again
//! (`turn.rs`). It pauses first if it had requested a turn and lost all the same, to writers of
//! other clients or at another key. It also pauses after every other conflict.

use std::future::Future;

use super::{Transaction, TransactionOptions};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::locks::turns::step_back;
use crate::routing::backoff::Backoff;

/// Attempts of a transaction at most. With pauses that grow to half a second, that is about a
/// quarter of a minute of lost attempts, without the waits for its turn. More attempts would hide
/// that the keys are too contended.
pub const TRANSACTION_ATTEMPTS_MAX: usize = 32;

impl Client {
    /// Runs the closure in a serializable transaction and commits it. After a conflict with another
    /// transaction, everything is done again, at most [`TRANSACTION_ATTEMPTS_MAX`] times: the
    /// closure must have no effect but through the transaction.
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
    /// The error of the closure or the commit, unless it is a conflict and an attempt is left;
    /// nothing was written then. After [`crate::Error::Undetermined`], which is never retried, the
    /// transaction may be committed.
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
        let mut turn = None;
        for attempts_left in (0..TRANSACTION_ATTEMPTS_MAX).rev() {
            let transaction = self.begin(options.clone()).await?;
            let inner = transaction.inner.clone();
            inner.turn.hold(turn.take());
            let outcome = attempt(transaction, &run).await;
            let (held, had_turn) = (inner.turn.take(), inner.turn.was_requested());
            drop(inner);
            match outcome {
                Err(error) if error.is_transaction_conflict() && attempts_left > 0 => {
                    tracing::debug!(%error, attempts_left, "a transaction begins again");
                    self.sender.metrics.restarts.add(1);
                    // After the first write conflict, waiting behind the others at its key is
                    // enough.
                    if had_turn || !matches!(error, Error::WriteConflict { .. }) {
                        let net = &self.sender.net;
                        net.sleep(backoff.wait(&**net)).await;
                    }
                    turn = self.turn_to_begin_anew(&options, &error, held).await;
                }
                outcome => {
                    if held.is_some() {
                        drop(held);
                        step_back().await;
                    }
                    return outcome;
                }
            }
        }
        unreachable!("the last attempt returns its outcome")
    }
}

async fn attempt<T, F, R>(transaction: Transaction, run: &F) -> Result<T>
where
    F: Fn(Transaction) -> R,
    R: Future<Output = Result<T>>,
{
    let handle = Transaction { inner: transaction.inner.clone(), managed: true };
    match run(handle).await {
        Ok(value) => transaction.inner.commit().await.map(|_| value),
        Err(error) => {
            // A failed rollback must not hide the first error: locks that are left expire.
            if let Err(error) = transaction.inner.roll_back().await {
                tracing::debug!(%error, "a failed transaction was not rolled back");
            }
            Err(error)
        }
    }
}
