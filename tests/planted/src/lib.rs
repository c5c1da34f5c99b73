//! Bugs that are put into the code on purpose, to prove that the simulator finds such bugs.
//!
//! Systems like this one have had each of these bugs, or their papers warn of it. At the bug's
//! place, the code asks `planted!(Name)` and misbehaves while the bug is planted. Without the feature
//! `planted`, that is the constant `false`. The feature belongs to `rangedb-sim`, and no build of the
//! workspace turns it on. So nothing that people run can misbehave so; a test holds that.
//!
//! A bug is planted for the current thread, because a simulated world runs in one thread.

use std::cell::Cell;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug for this thread in place of the one before. None removes it.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)+) => {
        /// Bugs that can be planted. Bugs of consensus come first, then those of reads, of
        /// timestamps, of transactions and of old versions.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            pub const ALL: &[Bug] = &[$(Bug::$bug,)+];

            /// Returns the description of the bug, for people.
            pub fn what(self) -> &'static str {
                match self {
                    $(Bug::$bug => concat!($($what,)+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    /// entries are acknowledged before they are synced
    AckBeforeSync,
    /// votes are sent before they are persisted
    VoteBeforePersist,
    /// a replica that restarts votes at once
    VoteAfterRestart,
    /// a replica that restarts with shorter timings stands for election while its last promise
    /// holds
    CampaignWithinPromise,
    /// the applied index is written outside the batch of what it describes
    AppliedIndexOutsideBatch,
    /// the log is truncated before the flush that covers it
    TruncateBeforeFlush,
    /// the install of a snapshot is not atomic
    InstallNotAtomic,
    /// the state machine is not loaded again after a snapshot
    MachineNotReloaded,
    /// a snapshot takes its index from memory, which may be ahead of what its view shows
    SnapshotFromMemory,
    /// the thread of a store walks over the data of a range, to see how much a read will cost
    DataReadInPass,
    /// a command reports what it puts to the listeners of its range, and not what it deletes
    DeletionUnreported,
    /// a follower that is short of room refuses entries that were on their way in front of deletes
    EntriesRefusedForRoom,
    /// the lease is measured from the response
    LeaseFromResponse,
    /// the lease is kept through a transfer of leadership
    LeaseKeptInTransfer,
    /// the lease goes by the leader's own timings, whatever the voters promise
    LeaseByOwnTimings,
    /// the lease runs on a clock that jumps, so that two leases overlap
    LeaseOnWallClock,
    /// the context of a ReadIndex round is used again
    ReadContextReused,
    /// the fence is not raised before a snapshot read
    FenceNotRaised,
    /// a snapshot read does not wait for what is in flight
    InFlightWaitSkipped,
    /// a new leader goes on with no fresh fence
    FenceNotRefreshed,
    /// the bound of timestamps is not persisted before they are handed out
    BoundNotPersisted,
    /// the oracle goes by its own clock, however far that leaps
    OracleBelievesItsClock,
    /// timestamps that a command names are believed to be the oracle's
    NamedTimestampsBelieved,
    /// timestamps are handed out without proof of leadership
    TimestampsUnproven,
    /// a node follows a hint to the control range's leader only if it has that node's address
    /// already
    HintedAddressIgnored,
    /// a retried command is applied twice
    RetryAppliedTwice,
    /// an undetermined outcome is reported as a failure
    UndeterminedAsFailed,
    /// a lost answer is taken for a refusal
    LostAnswerAsRefusal,
    /// what a transaction read is not validated
    ValidationSkipped,
    /// keys that a transaction read are validated, the spans are not
    PhantomUnchecked,
    /// the commit timestamp is fetched before the prewrite, and no range objects
    CommitTsBeforePrewrite,
    /// the primary is committed before all prewrites are done
    PrimaryBeforePrewrites,
    /// a rollback leaves no record
    RollbackRecordForgotten,
    /// a lock is rolled back without asking its primary
    PrimaryNotAsked,
    /// versions are collected above what a reader holds
    CollectAboveReader,
    /// compaction drops old versions before a flush covers the entry that allows it
    CollectBeforeFlush,
    /// compaction drops what a snapshot on its way has still to show
    CompactionUnderStream,
}

impl Bug {
    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }

    /// Returns the name of the bug on the command line.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    pub fn named(name: &str) -> Option<Bug> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_planted_alone_and_in_its_thread() {
        plant(Some(Bug::AckBeforeSync));
        plant(Some(Bug::VoteBeforePersist));
        let planted = |bug: &&Bug| bug.is_planted();
        assert_eq!(Bug::ALL.iter().filter(planted).count(), 1);
        assert!(Bug::VoteBeforePersist.is_planted());
        let elsewhere = std::thread::spawn(|| Bug::VoteBeforePersist.is_planted());
        assert!(!elsewhere.join().unwrap());
        plant(None);
        assert!(!Bug::VoteBeforePersist.is_planted());
    }

    #[test]
    fn every_bug_is_found_by_its_name_and_says_what_it_is() {
        for bug in Bug::ALL {
            assert_eq!(Bug::named(&bug.name()), Some(*bug));
            assert!(bug.what().len() > 10);
        }
        assert_eq!(Bug::named("NoSuchBug"), None);
    }
}
