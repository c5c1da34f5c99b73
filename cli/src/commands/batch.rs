//! `rangedb batch put K V ...` and `rangedb batch delete K ...`: atomic writes of many keys.

use bytes::Bytes;
use clap::{Args, Subcommand};
use rangedb_client::Batch as ClientBatch;

use crate::args;
use crate::commands::{delete, put};
use crate::escape::escape;
use crate::failure::Failure;
use crate::session::Session;

/// Write many keys at once: all or nothing
///
/// The keys may lie in any number of ranges.
#[derive(Debug, Subcommand)]
pub enum Batch {
    Put(BatchPut),
    Delete(BatchDelete),
}

/// Set keys to values
#[derive(Debug, Args)]
pub struct BatchPut {
    /// Keys, each with its value behind it
    #[arg(
        value_parser = args::bytes(),
        value_names = ["KEY", "VALUE"],
        num_args = 2..,
        required = true,
        allow_negative_numbers = true
    )]
    pairs: Vec<Bytes>,
}

/// Delete keys; they need not exist
#[derive(Debug, Args)]
pub struct BatchDelete {
    #[arg(value_parser = args::bytes(), value_name = "KEY", required = true)]
    keys: Vec<Bytes>,
}

impl Batch {
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        match self {
            Batch::Put(put) => put.run(session).await?,
            Batch::Delete(delete) => delete.run(session).await?,
        }
        // The cluster has already answered the commit. Waits until the client has removed the
        // remaining locks: they would delay the next readers of the keys.
        session.client.finish().await;
        Ok(())
    }
}

impl BatchPut {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let (pairs, rest) = self.pairs.as_chunks::<2>();
        if let [key] = rest {
            let message = format!("keys and values come in pairs; `{}` has no value", escape(key));
            return Err(Failure::Usage(message));
        }
        let commit_ts = match &session.transaction {
            None => {
                let add = |batch: ClientBatch, [key, value]: &[Bytes; 2]| {
                    batch.put(key.clone(), value.clone())
                };
                let batch = pairs.iter().fold(ClientBatch::new(), add);
                Some(session.client.batch(batch).await?.commit_ts)
            }
            Some(transaction) => {
                for [key, value] in pairs {
                    transaction.put(key.clone(), value.clone()).await?;
                }
                None
            }
        };
        Ok(put::print(session.streams.out, session.output, commit_ts)?)
    }
}

impl BatchDelete {
    async fn run(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if let Some(transaction) = &session.transaction {
            for key in self.keys {
                transaction.delete(key).await?;
            }
            return Ok(put::print(session.streams.out, session.output, None)?);
        }
        let batch = self.keys.into_iter().fold(ClientBatch::new(), ClientBatch::delete);
        let committed = session.client.batch(batch).await?;
        let deleted = committed.results.iter().map(|result| result.deleted).sum();
        Ok(delete::print(session.streams.out, session.output, deleted, committed.commit_ts)?)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cluster;

    #[test]
    fn pairs_are_put_in_one_commit() {
        let cluster = Cluster::new();
        cluster.run(["batch", "put", "/a", "1", "/b", "-2"]).prints("OK\n");
        let rows = cluster.rows();
        let (a, b) = (&rows["/a".as_bytes()], &rows["/b".as_bytes()]);
        assert_eq!((&a.value[..], &b.value[..]), (&b"1"[..], &b"-2"[..]));
        assert_eq!(a.mod_ts, b.mod_ts);
    }

    #[test]
    fn a_key_without_a_value_is_named_and_nothing_is_written() {
        let cluster = Cluster::new();
        cluster
            .run(["batch", "put", "/a", "1", "/b"])
            .fails(2, "error: INVALID_ARGUMENT: keys and values come in pairs; `/b` has no value");
        assert!(cluster.rows().is_empty());
    }

    #[test]
    fn deletes_count_the_keys_that_were_there() {
        let cluster = Cluster::new();
        cluster.set("/a", b"1");
        cluster.set("/b", b"2");
        cluster.run(["batch", "delete", "/a", "/b", "/c"]).prints("OK (deleted 2)\n");
        assert!(cluster.rows().is_empty());
    }
}
