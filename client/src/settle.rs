//! Finishing what another transaction left, for those who come across a lock and want nothing of the
//! key itself: a node that makes sure that no lock from long ago is left in a range.

use rangedb_proto::v1;

use crate::client::Client;
use crate::error::Result;

impl Client {
    /// Asks the lock's primary what became of its transaction, and commits or removes the lock if
    /// that is decided. False if the transaction is alive: its lock stays.
    pub async fn settle(&self, lock: v1::KeyLocked) -> Result<bool> {
        self.resolver.clear(&lock, &[], self.deadline()).await
    }
}
