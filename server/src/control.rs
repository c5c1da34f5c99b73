//! The control plane: timestamps, the node registry, the range directory, configuration and the
//! scheduler, as a role of whichever node leads the control range (design D10).
//!
//! The state of the control plane is records below `_/cluster/` and `_/partitions/`
//! (`system/records.rs`), written by ordinary one-range commits. State that is only in memory can be
//! rebuilt from those records and from the nodes' reports. A deposed leader can do no harm: the log
//! refuses its commits, the lease refuses its reads, and it checks the lease after it has taken
//! timestamps and before it hands them out.
//!
//! One [`Control`] is one term of leadership (`system/role.rs`): `takeover.rs` creates it, and it is
//! dropped when the leadership ends.

mod admin;
mod balance;
mod clock_watch;
mod clocks;
mod deadlocks;
mod diagnosis;
pub mod directory;
mod garbage;
mod heartbeat;
mod join;
mod meta_view;
pub mod oracle;
pub mod schedule;
pub mod settings;
mod skipped_entries;
mod state;
mod takeover;
mod time;
mod timestamps;

use std::sync::Arc;

use futures::channel::oneshot;
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::net::BoxFuture;
use rangedb_proto::v1::{self, Committed, request, response};

use crate::surroundings::Surroundings;
use crate::system::{Changes, CommitError, SystemStore};
use deadlocks::Detector;
use oracle::Oracle;
use state::State;

pub use join::{describes_a_node, is_address};

pub use crate::system::records::CONTROL;

/// The control plane during one term of leadership of the control range.
pub struct Control {
    pub term: u64,
    around: Surroundings,
    /// The control plane's records, in the name of this term.
    store: SystemStore,
    oracle: Mutex<Oracle>,
    /// Held while a bound is being committed, so that all who need a bound wait for the same
    /// commit.
    extending: futures::lock::Mutex<()>,
    state: Mutex<State>,
    /// Held from the read of the state that a change depends on until the change is committed.
    changing: futures::lock::Mutex<()>,
    deadlocks: Mutex<Detector>,
}

impl Control {
    /// Answers a request that is for the control plane.
    ///
    /// A change that was begun is carried through even if the caller no longer waits. If it were
    /// cancelled between its commit and the update of memory, this control plane would not know of
    /// it.
    pub fn handle(self: Arc<Self>, body: request::Body) -> BoxFuture<'static, response::Body> {
        let changes = body.effect().changes();
        let net = self.around.net.clone();
        let answering =
            async move { self.answer(body).await.unwrap_or_else(response::Body::Error) };
        if !changes {
            return Box::pin(answering);
        }
        let (tell, answer) = oneshot::channel();
        net.spawn(Box::pin(async move {
            // The caller may no longer wait.
            let _ = tell.send(answering.await);
        }));
        Box::pin(async move {
            let stopping = || v1::Error::undetermined("the node is stopping");
            answer.await.unwrap_or_else(|_| response::Body::Error(stopping()))
        })
    }

    async fn answer(&self, body: request::Body) -> Result<response::Body, v1::Error> {
        use request::Body as Request;
        use response::Body as Response;
        Ok(match body {
            Request::Timestamps(ask) => Response::Timestamps(self.timestamps(ask.count).await?),
            Request::Locate(ask) => Response::Locate(self.locate(&ask)),
            Request::Join(ask) => Response::Join(self.join(ask).await?),
            Request::Heartbeat(ask) => Response::Heartbeat(self.heartbeat(ask).await?),
            Request::ClusterStatus(_) => Response::ClusterStatus(self.cluster_status()),
            Request::RemoveNode(ask) => Response::RemoveNode(self.remove_node(ask).await?),
            Request::SkipEntry(ask) => Response::SkipEntry(self.skip_entry(ask).await?),
            Request::MetaRead(ask) => Response::MetaRead(self.meta_read(ask).await?),
            Request::ConfigGet(ask) => Response::ConfigGet(self.config_get(ask).await?),
            Request::ConfigSet(ask) => Response::ConfigSet(self.config_set(ask).await?),
            Request::HoldFloor(ask) => Response::HoldFloor(self.hold_floor(ask).await?),
            Request::GarbageStatus(_) => Response::GarbageStatus(self.garbage_status().await?),
            Request::LockWaits(ask) => Response::LockWaits(self.lock_waits(ask)),
            Request::PartitionList(ask) => Response::PartitionList(self.partition_list(&ask)),
            Request::PointRead(_)
            | Request::Scan(_)
            | Request::Write(_)
            | Request::TransactionCommand(_)
            | Request::Validate(_)
            | Request::ListLocks(_)
            | Request::Forwarded(_)
            | Request::ForUser(_) => {
                return Err(v1::Error::invalid("body", "not a request to the control plane"));
            }
        })
    }

    /// Commits changes at a fresh timestamp.
    async fn commit(&self, changes: Changes) -> Result<Committed, CommitError> {
        let start_ts = self.fresh_timestamp().await.map_err(CommitError::Other)?;
        self.store.commit(start_ts, changes).await
    }

    /// The newest timestamp handed out. All later timestamps are above it: this oracle hands out
    /// higher ones, and its successor begins at a bound that this oracle never reaches.
    pub fn newest_timestamp(&self) -> u64 {
        self.oracle().newest().0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock()
    }
}
