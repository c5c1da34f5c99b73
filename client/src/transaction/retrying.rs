//! [`Client::transaction`]: a transaction that begins again after a conflict.
//!
//! Where it lost at a key, it takes its turn there before it begins again (`turn.rs`). It pauses only
//! if it had one and lost all the same, to writers of other clients or at another key.

use std::future::Future;

use super::{Transaction, TransactionOptions};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::turns::step_back;

/// How often a transaction is begun at most. With pauses that grow to half a second, that is about a
/// quarter of a minute of losing against others, without the waits for its turn; more would hide that
/// the keys are too contended.
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
        let mut turn = None;
        for attempts_left in (0..TRANSACTION_ATTEMPTS_MAX).rev() {
            let transaction = self.begin(options.clone()).await?;
            let inner = transaction.inner.clone();
            inner.turn.hold(turn.take());
            let outcome = attempt(transaction, &run).await;
            let (held, had_turn) = (inner.turn.take(), inner.turn.was_asked_for());
            drop(inner);
            match outcome {
                Err(error) if error.is_transaction_conflict() && attempts_left > 0 => {
                    tracing::debug!(%error, attempts_left, "a transaction begins again");
                    self.sender.metrics.restarts.add(1);
                    // The first time it is enough to wait behind the others, if it is known where.
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
            // An error while undoing must not hide why: locks that are left expire.
            if let Err(error) = transaction.inner.roll_back().await {
                tracing::debug!(%error, "a failed transaction was not rolled back");
            }
            Err(error)
        }
    }
}
