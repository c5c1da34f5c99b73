//! Resolution of a stale lock for a caller that does not need its key: a node that ensures that no
//! lock from long ago is left in a range, before garbage collection.

use rangedb_proto::v1;

use crate::client::Client;
use crate::error::Result;

impl Client {
    /// Asks the lock's primary for the fate of its transaction, and commits or removes the lock if
    /// that is decided. False if the transaction is alive: its lock stays.
    pub async fn settle(&self, lock: v1::KeyLocked) -> Result<bool> {
        self.resolver.clear(&lock, &[], self.deadline()).await
    }
}
