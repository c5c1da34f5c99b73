//! Ending the process where going on could do harm.
//!
//! After a failed write or sync the contents of the disk are unknown. After a panic in a thread
//! that moves state the contents of memory are unknown. Acknowledged writes are in the logs of a
//! quorum. The next start reads from the disk what this node has.

use std::fmt::Display;
use std::thread::JoinHandle;

use crate::shell::logging;

/// Logs the reason and ends the process at once. Nothing is flushed and no destructor runs.
pub(crate) fn process(thread: &str, reason: impl Display) -> ! {
    tracing::error!(thread, "the process ends: {reason}");
    logging::drain();
    std::process::abort()
}

/// Starts a thread without which the node must not go on: if it panics, the process ends.
pub(crate) fn thread(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    struct EndIfPanicking(String);

    impl Drop for EndIfPanicking {
        fn drop(&mut self) {
            if std::thread::panicking() {
                process(&self.0, "a panic, see the lines before");
            }
        }
    }

    let guard = EndIfPanicking(name.clone());
    std::thread::Builder::new().name(name).spawn(move || {
        let _guard = guard;
        body();
    })
}
