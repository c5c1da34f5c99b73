//! Log engines that a test can stop and crash, in memory or on disk.

use rangedb_storage::{LogEngine, MemLog};

pub trait LogNode {
    fn engine(&self) -> &dyn LogEngine;
    /// Stops in good order and starts again.
    fn restart(&mut self);
    /// Stops at once and starts again.
    fn crash(&mut self);
}

#[derive(Default)]
pub struct MemNode(MemLog);

impl LogNode for MemNode {
    fn engine(&self) -> &dyn LogEngine {
        &self.0
    }

    fn restart(&mut self) {
        self.0.crash();
    }

    fn crash(&mut self) {
        self.0.crash();
    }
}

#[cfg(feature = "disk")]
pub use disk::DiskNode;

#[cfg(feature = "disk")]
mod disk {
    //! A crash is a copy of the directory as it is.

    use std::path::PathBuf;

    use rangedb_storage::{LogEngine, LogOptions, RaftEngineLog};
    use tempfile::TempDir;

    use super::LogNode;
    use crate::state_node::copy_dir;

    pub struct DiskNode {
        log: Option<RaftEngineLog>,
        dir: TempDir,
        lives: u32,
    }

    impl DiskNode {
        pub fn new() -> Self {
            let mut node = Self { log: None, dir: tempfile::tempdir().unwrap(), lives: 0 };
            node.open();
            node
        }

        fn data_dir(&self) -> PathBuf {
            self.dir.path().join(self.lives.to_string())
        }

        fn open(&mut self) {
            // Files of a few batches each, so that purges have work to do.
            let options = LogOptions { file_bytes: 4 << 10, purge_bytes: 12 << 10 };
            self.log = Some(RaftEngineLog::open(&self.data_dir(), options).unwrap());
        }
    }

    impl LogNode for DiskNode {
        fn engine(&self) -> &dyn LogEngine {
            self.log.as_ref().unwrap()
        }

        fn restart(&mut self) {
            self.log = None;
            self.open();
        }

        fn crash(&mut self) {
            let from = self.data_dir();
            self.lives += 1;
            copy_dir(&from, &self.data_dir());
            self.log = None;
            self.open();
        }
    }
}
