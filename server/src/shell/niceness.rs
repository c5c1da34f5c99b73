//! Niceness of threads whose work grows with data, so that those with little work get a processor at
//! once: ticks, votes, heartbeats and the steps of other ranges' commands between one disk and the next.
//!
//! Linux has a niceness for each thread; elsewhere it is the process's and is left alone.

/// Threads that apply commands: a third of the weight of the others. What they do is waited for.
pub(crate) const APPLY: i32 = 5;

/// Threads for heavy reads: a tenth.
pub(crate) const HEAVY_READS: i32 = 10;

/// Gives the thread that calls this a niceness.
pub(crate) fn of_this_thread(niceness: i32) {
    if !cfg!(target_os = "linux") {
        return;
    }
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        // It does its work as well, only less smoothly.
        tracing::debug!("a thread keeps its priority: {error}");
    }
}
