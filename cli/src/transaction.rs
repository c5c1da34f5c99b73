//! Begin and end of a transaction, for a repl and for separate runs of the command line.

use std::io;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rangedb_client::{Error, Isolation, Timestamp, Transaction, TransactionOptions};
use serde_json::json;

use crate::args::Output;
use crate::failure::Failure;
use crate::json;
use crate::session::Session;

/// Begin a transaction
///
/// It reads everything as of now. What it writes is seen by nobody else until it commits, and then
/// all of it at once.
#[derive(Clone, Debug, Args)]
pub struct Begin {
    /// Isolation from others between its reads and its commit
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "serializable")]
    isolation: Level,
    /// Refuse writes and locks; nothing has to be committed
    #[arg(long)]
    read_only: bool,
    /// Read as of this timestamp, such as a commit_ts; read-only
    #[arg(long, value_name = "TIMESTAMP", conflicts_with = "pessimistic")]
    at: Option<u64>,
    /// Lock every key when it is written, so that the commit cannot fail for a conflict on it
    #[arg(long, conflicts_with = "read_only")]
    pessimistic: bool,
    /// Time to wait for a key that another transaction has locked; --timeout by default
    #[arg(long, value_name = "DURATION", value_parser = rangedb_proto::duration::parse)]
    lock_wait: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// As if transactions ran one after the other
    Serializable,
    /// All reads see one moment; two transactions that each read what the other writes may both
    /// commit
    Snapshot,
}

impl Begin {
    /// Opens the transaction in the session.
    pub async fn run(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        let transaction = self.open(session).await?;
        let (id, start_ts) = (transaction.id(), transaction.start_ts());
        session.transaction = Some(transaction);
        Ok(print_begun(session, &id, start_ts)?)
    }

    /// Opens the transaction and returns it. The caller keeps it and then calls [`print_begun`].
    pub async fn open(&self, session: &Session<'_>) -> Result<Transaction, Failure> {
        Ok(session.client.begin(self.options()).await?)
    }

    fn options(&self) -> TransactionOptions {
        TransactionOptions {
            isolation: match self.isolation {
                Level::Serializable => Isolation::Serializable,
                Level::Snapshot => Isolation::Snapshot,
            },
            read_only: self.read_only,
            at: self.at.map(Timestamp),
            lock_wait: self.lock_wait,
            pessimistic: self.pessimistic,
            ..TransactionOptions::default()
        }
    }
}

pub fn print_begun(session: &mut Session<'_>, id: &str, start_ts: Timestamp) -> io::Result<()> {
    let out = &mut *session.streams.out;
    match session.output {
        Output::Table => writeln!(out, "OK (transaction {id})"),
        Output::Json => json::print(out, &json!({ "id": id, "start_ts": start_ts.0 })),
    }
}

pub fn print_rolled_back(session: &mut Session<'_>, id: &str) -> io::Result<()> {
    let out = &mut *session.streams.out;
    match session.output {
        Output::Table => writeln!(out, "OK (rolled back)"),
        Output::Json => json::print(out, &json!({ "rolled_back": id })),
    }
}

/// Commits the session's transaction.
pub async fn commit(session: &mut Session<'_>) -> Result<(), Failure> {
    let transaction = session.take_transaction()?;
    let start_ts = transaction.start_ts();
    let commit_ts = match transaction.commit().await {
        Ok(commit_ts) => commit_ts,
        Err(error @ Error::Undetermined(_)) => return Err(Failure::Request(error)),
        Err(error) => return Err(Failure::NotCommitted(error)),
    };
    let out = &mut *session.streams.out;
    match session.output {
        // The timestamp of a commit is above the start timestamp.
        Output::Table if commit_ts == start_ts => writeln!(out, "OK (nothing was written)")?,
        Output::Table => writeln!(out, "OK (committed at {})", commit_ts.0)?,
        Output::Json => json::print(out, &json!({ "commit_ts": commit_ts.0 }))?,
    }
    Ok(())
}

/// Rolls back the session's transaction.
pub async fn roll_back(session: &mut Session<'_>) -> Result<(), Failure> {
    let transaction = session.take_transaction()?;
    let id = transaction.id();
    transaction.rollback().await?;
    Ok(print_rolled_back(session, &id)?)
}

/// Rolls back the session's transaction, if there is one, after an error that makes its commit
/// impossible: others may wait for its locks. True if there was a transaction to roll back.
pub async fn end_if_lost(session: &mut Session<'_>, failure: &Failure) -> bool {
    if !failure.loses_transaction() {
        return false;
    }
    let Some(transaction) = session.transaction.take() else { return false };
    end_silently(transaction).await;
    true
}

/// Rolls back where nobody can receive the result. Locks that remain expire.
pub async fn end_silently(transaction: Transaction) {
    let _ = transaction.rollback().await;
}
