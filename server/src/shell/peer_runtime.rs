//! The threads on which nodes talk to each other: raft messages and snapshots, in and out.
//!
//! A runtime apart from that of clients: whatever they ask, heartbeats and votes find a thread.

use tokio::runtime::{Builder, Handle, Runtime};

/// Enough for the messages of a node that does much: sockets and copying, no evaluation.
const THREADS: usize = 2;

/// See the module's head. Its tasks end when it is dropped, and nobody waits for them.
pub(crate) struct PeerRuntime(Option<Runtime>);

impl PeerRuntime {
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("peer")
            .enable_all()
            .build()?;
        Ok(PeerRuntime(Some(runtime)))
    }

    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
    }
}

impl Drop for PeerRuntime {
    fn drop(&mut self) {
        // Dropped where waiting is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
