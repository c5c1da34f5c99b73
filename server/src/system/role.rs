//! Life of a role at the leader of a system range.
//!
//! 1. The range's leader has applied all that earlier leaders committed. The role takes over: it
//!    commits its term under a condition that fails if another one took over meanwhile, and reads
//!    its state back. Failed attempts are repeated while the leadership lasts.
//! 2. The role serves. Each of its commits is under the condition that its term is the newest, so a
//!    deposed role can do no harm.
//! 3. The leadership ends, and the role is dropped. Its periodic work ends with it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, Either};
use parking_lot::{Mutex, MutexGuard};
use rangedb_client::net::BoxFuture;
use rangedb_proto::RangeId;
use rangedb_proto::v1;

use crate::surroundings::Surroundings;

/// Pause before the next attempt to take over.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Time for one attempt to take over. An attempt can hang in a range that has lost its quorum.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// A role that runs at the leader of a system range.
pub trait Role: Send + Sync + Sized + 'static {
    /// The range at whose leader the role runs.
    const RANGE: RangeId;

    /// Takes over as the leader of this term, and reads the role's state back.
    ///
    /// # Errors
    ///
    /// Any error may pass: the caller tries again while this node leads.
    fn take_over(
        around: Surroundings,
        term: u64,
    ) -> BoxFuture<'static, Result<Arc<Self>, v1::Error>>;

    /// Begins the role's periodic work, which must end once the role is dropped.
    fn serve(self: &Arc<Self>);
}

/// Place of a role in a node: the role, while this node leads its range.
pub struct RoleSlot<R>(Mutex<Slot<R>>);

struct Slot<R> {
    /// Term in which this node leads the range.
    leads: Option<u64>,
    role: Option<Arc<R>>,
}

impl<R> Default for RoleSlot<R> {
    fn default() -> Self {
        RoleSlot(Mutex::new(Slot { leads: None, role: None }))
    }
}

impl<R: Role> RoleSlot<R> {
    /// Returns the role, if it serves here.
    pub fn get(&self) -> Option<Arc<R>> {
        self.slot().role.clone()
    }

    /// Notes that this node leads the range in this term. [`RoleSlot::take_over`] follows.
    pub fn lead(&self, term: u64) {
        self.slot().leads = Some(term);
    }

    /// Takes over and serves, if this node still leads in this term. Returns once the role serves
    /// or the leadership has ended.
    pub async fn take_over(&self, around: &Surroundings, term: u64) {
        while self.leads(term) {
            let attempt = R::take_over(around.clone(), term);
            let first = future::select(attempt, around.net.sleep(TAKE_OVER_TIMEOUT)).await;
            if let Either::Left((Ok(role), _)) = first {
                // Checked and set under one lock: if the leadership ends later, so does the role.
                let mut slot = self.slot();
                if slot.leads == Some(term) {
                    role.serve();
                    slot.role = Some(role);
                }
                return;
            }
            around.net.sleep(RETRY_PAUSE).await;
        }
    }

    /// Ends the role, because the leadership has ended.
    pub fn end(&self) {
        let mut slot = self.slot();
        slot.leads = None;
        slot.role = None;
    }

    fn leads(&self, term: u64) -> bool {
        self.slot().leads == Some(term)
    }

    fn slot(&self) -> MutexGuard<'_, Slot<R>> {
        self.0.lock()
    }
}
