//! Limits and timings of a store.

/// All counts of time are ticks; how long a tick lasts is known only to leases and to whoever sends
/// [`crate::Event::Tick`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The least time that passes between two ticks, in microseconds.
    pub tick_us: u64,
    /// A follower that hears nothing for between one and two of these campaigns.
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Serve reads under the leader's lease; else every read asks a quorum.
    pub lease_reads: bool,
    /// Bytes of commands that may wait for a range's next entry; beyond, senders are told to wait.
    pub queue_bytes_max: usize,
    /// Bytes of commands gathered into one entry: large enough to spread the cost of a round, small
    /// enough that a follower takes it in one message without delaying heartbeats.
    pub entry_bytes_max: usize,
    /// Bytes that a leader may have in its log uncommitted.
    pub uncommitted_bytes_max: u64,
    /// Bytes of entries in one message to a follower.
    pub message_bytes_max: u64,
    /// Messages with entries on their way to one follower.
    pub inflight_messages_max: usize,
    /// Bytes of committed entries applied in one pass of one range, so that the others get their turn.
    pub apply_bytes_max: u64,
    /// Bytes of the newest entries that a replica keeps in memory, besides those not yet durable.
    pub entry_cache_bytes: usize,
    /// Bytes of log that a store's ranges together write since the last flush before they want one.
    pub flush_log_bytes: u64,
    /// Bytes of log kept behind a flush for followers that lag; further back they get a snapshot.
    pub log_keep_bytes: u64,
    /// Entries a learner may lag and still be promoted.
    pub promote_lag_entries: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            tick_us: 100_000,
            election_ticks: 10,
            heartbeat_ticks: 2,
            lease_reads: true,
            queue_bytes_max: 32 << 20,
            entry_bytes_max: 1 << 20,
            uncommitted_bytes_max: 64 << 20,
            message_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            apply_bytes_max: 4 << 20,
            entry_cache_bytes: 2 << 20,
            flush_log_bytes: 64 << 20,
            log_keep_bytes: 32 << 20,
            promote_lag_entries: 64,
        }
    }
}

impl Config {
    /// The least time for which a replica with these timings refuses its vote after it heard a leader,
    /// in microseconds of anybody's clock. Leases count on it.
    ///
    /// A follower refuses votes for `election_ticks` of its own ticks. The first of them may come at
    /// once, so at least one less pass in full; a tenth is taken off for clocks that run at different
    /// speeds.
    pub fn vote_promise_us(&self) -> u64 {
        (self.election_ticks as u64 - 1) * self.tick_us * 9 / 10
    }

    /// The longest time for which a replica with these timings refuses votes after it heard a leader.
    pub fn vote_embargo_us(&self) -> u64 {
        self.election_ticks as u64 * self.tick_us
    }
}
