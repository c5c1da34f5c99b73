//! Effects: the only outputs of a [`crate::Store`], by who carries them out.
//!
//! The caller of [`crate::Store::flush`] has these duties:
//!
//! 1. It begins effects in the order in which they came. None of them may block it: ticks,
//!    heartbeats and votes come out of the next pass.
//! 2. [`Io::Append`]: batches become durable in order of tokens. Only then does
//!    [`Event::Persisted`] go in. A message that promises what a batch holds comes out of the pass
//!    after that, so [`Io::Send`] never waits for a disk.
//! 3. [`Io::Apply`]: tasks reach the shard's [`crate::Applier`] in their order. It may run them
//!    before or after the append that came beside them: an entry is handed out only once a quorum
//!    has it.
//! 4. [`Io::Flush`] and [`Io::SendSnapshot`] take as long as they take, and are reported once.
//! 5. [`Answer`]s go to the waiting requests, in any order.

use std::sync::Arc;

use bytes::Bytes;
use rangedb_proto::RangeId;
use rangedb_proto::v1::{RaftEnvelope, RangeDescriptor};
use rangedb_storage::{LogBatch, Reader, Span};

#[cfg(doc)]
use crate::Event;
use crate::apply::ApplyTask;
use crate::{Error, Monotonic, RequestId};

pub enum Effect {
    /// For the request that waits.
    Answer(Answer),
    /// For the disks, the network and the applier.
    Io(Io),
    /// For the node, which talks to the oracle and runs what belongs to a leader.
    Role(RoleChange),
}

/// Answer to a request. Each request gets one, here or from the applier.
pub enum Answer {
    /// To [`Event::Propose`], [`Event::Operate`] and [`Event::SkipEntry`].
    Reply { request: RequestId, result: Result<Bytes, Error> },
    /// To [`Event::Read`].
    Read { request: RequestId, result: Result<ReadGrant, Error> },
}

impl Answer {
    /// Refuses a request that is not a read.
    pub(crate) fn refusal(request: RequestId, error: &Error) -> Self {
        Answer::Reply { request, result: Err(error.clone()) }
    }
}

/// Permission to evaluate a read.
pub struct ReadGrant {
    /// The state that the read may see.
    pub reader: Arc<dyn Reader>,
    pub descriptor: Arc<RangeDescriptor>,
    /// End of the lease under which the reader was taken; `None` if a quorum confirmed the read.
    /// Whoever hands out the reader checks the clock first. Past this time the reader may be stale,
    /// because a process may stall at any point, and the read is stepped again with `confirm`.
    pub lease_until: Option<Monotonic>,
}

pub enum Io {
    /// Send a message to another node. May be lost. Messages to one receiver leave in the order
    /// given.
    Send(RaftEnvelope),
    /// Make the batch durable, in order of tokens, then report [`Event::Persisted`].
    Append { token: u64, batch: LogBatch },
    /// Hand the task to the shard's [`crate::Applier`], in this order. Must not be lost.
    Apply(ApplyTask),
    /// Flush the state engine, then report [`Event::Flushed`].
    Flush { token: u64 },
    /// Stream the span's records to the envelope's receiver, then report [`Event::SnapshotSent`].
    /// The records are the state at the entry `index`.
    SendSnapshot { envelope: RaftEnvelope, index: u64, reader: Arc<dyn Reader>, span: Span },
}

/// Change of a replica's role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleChange {
    /// This replica leads and has applied all entries that earlier leaders committed. It needs a
    /// fresh timestamp from the oracle before it commits anything: [`Event::Fenced`].
    NeedFence { range: RangeId, term: u64 },
    /// This replica no longer leads.
    SteppedDown { range: RangeId },
}
