//! Niceness of threads whose work grows with data. So threads with little work get a processor at
//! once: ticks, votes, heartbeats, and the steps of other ranges' commands between two disk writes.
//!
//! Linux has a niceness for each thread. Elsewhere the niceness is the process's and stays
//! unchanged.

/// Niceness of threads that apply commands: a third of the weight of others. Clients wait for their
/// work.
pub(crate) const APPLY: i32 = 5;

/// Niceness of threads for heavy reads: a tenth of the weight of others.
pub(crate) const HEAVY_READS: i32 = 10;

/// Sets the niceness of the calling thread.
pub(crate) fn of_this_thread(niceness: i32) {
    if !cfg!(target_os = "linux") {
        return;
    }
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        // Harmless: the thread does its work as well, only less smoothly.
        tracing::debug!("a thread keeps its priority: {error}");
    }
}
