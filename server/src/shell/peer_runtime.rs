//! Threads on which nodes talk to each other: Raft messages and snapshots, in and out.
//!
//! They are a runtime apart from the clients' runtime. So heartbeats and votes find a thread,
//! whatever clients ask.

use tokio::runtime::{Builder, Handle, Runtime};

/// Number of threads. They handle sockets and copying, and evaluate nothing, so two suffice for the
/// messages of a busy node.
const THREADS: usize = 2;

/// Runtime for messages between nodes. Its tasks end when it is dropped, and nobody waits for them.
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
        // Does not wait for the tasks, because waiting is not allowed where the value is dropped.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
