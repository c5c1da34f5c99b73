//! Limits and timings of a store.

/// Limits and timings of a store. All counts of time are ticks. Only leases and the sender of
/// [`crate::Event::Tick`] know how long a tick lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Shortest time between two ticks, in microseconds.
    pub tick_us: u64,
    /// Election timeout: a follower that hears nothing for between one and two of these campaigns.
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Serve reads under the leader's lease; otherwise every read asks a quorum.
    pub lease_reads: bool,
    /// Bytes of commands that may wait for a range's next entry; beyond, commands are refused as
    /// busy.
    pub queue_bytes_max: usize,
    /// Bytes of commands packed into one entry: large enough to spread the cost of a round, small
    /// enough that a follower takes it in one message without delaying heartbeats.
    pub entry_bytes_max: usize,
    /// Uncommitted bytes that a leader may have in its log.
    pub uncommitted_bytes_max: u64,
    /// Bytes of entries in one message to a follower.
    pub message_bytes_max: u64,
    /// Messages with entries in flight to one follower.
    pub inflight_messages_max: usize,
    /// Bytes of committed entries in one ready of one range, so that the others get their turn.
    pub apply_bytes_max: u64,
    /// Bytes of the newest entries that a replica keeps in memory, besides those not yet durable.
    pub entry_cache_bytes: usize,
    /// Request a flush after this many log bytes since the last one, summed over the store's
    /// ranges.
    pub flush_log_bytes: u64,
    /// Bytes of log kept behind a flush for lagging followers; one further back gets a snapshot.
    pub log_keep_bytes: u64,
    /// Entries by which a learner may lag and still be promoted.
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
    /// Shortest time for which a replica with these timings refuses its vote after it heard a
    /// leader, in microseconds of any clock. Leases rely on it.
    ///
    /// A follower refuses votes for `election_ticks` of its own ticks. The first tick may come at
    /// once, so only one less is sure to pass in full. A tenth is taken off for clocks that run at
    /// different speeds.
    pub fn vote_promise_us(&self) -> u64 {
        (self.election_ticks as u64 - 1) * self.tick_us * 9 / 10
    }

    /// Longest time for which a replica with these timings refuses votes after it heard a leader,
    /// in microseconds.
    pub fn vote_embargo_us(&self) -> u64 {
        self.election_ticks as u64 * self.tick_us
    }
}
