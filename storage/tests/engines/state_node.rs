//! State engines that a test can stop and crash, in memory or on disk.

use rangedb_storage::{MemState, StateEngine};

pub trait StateNode {
    fn engine(&self) -> &dyn StateEngine;
    /// Flushes, stops in good order and starts again.
    fn restart(&mut self);
    /// Stops at once, and starts again with what the contract lets survive.
    fn crash(&mut self);
}

pub struct MemNode {
    state: MemState,
    rng: fastrand::Rng,
}

impl MemNode {
    pub fn new(seed: u64) -> Self {
        Self { state: MemState::new(), rng: fastrand::Rng::with_seed(seed) }
    }
}

impl StateNode for MemNode {
    fn engine(&self) -> &dyn StateEngine {
        &self.state
    }

    fn restart(&mut self) {
        self.state.flush().unwrap();
        assert_eq!(self.state.crash(&mut self.rng), 0);
    }

    fn crash(&mut self) {
        self.state.crash(&mut self.rng);
    }
}

#[cfg(feature = "disk")]
pub use disk::{RocksNode, copy_dir};

#[cfg(feature = "disk")]
mod disk {
    //! A crash is a copy of the directory as it is: what the engine has in memory is lost.

    use std::path::{Path, PathBuf};

    use rangedb_storage::{RocksState, StateEngine, StateOptions};
    use tempfile::TempDir;

    use super::StateNode;

    pub struct RocksNode {
        state: Option<RocksState>,
        dir: TempDir,
        lives: u32,
    }

    impl RocksNode {
        pub fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut node = Self { state: None, dir, lives: 0 };
            node.open();
            node
        }

        fn data_dir(&self) -> PathBuf {
            self.dir.path().join(self.lives.to_string())
        }

        fn open(&mut self) {
            // Several files in a small snapshot, and a directory that does not change by itself.
            let options = StateOptions::default();
            let options = StateOptions { staged_file_bytes: 64, compaction: false, ..options };
            self.state = Some(RocksState::open(&self.data_dir(), options).unwrap());
        }
    }

    impl StateNode for RocksNode {
        fn engine(&self) -> &dyn StateEngine {
            self.state.as_ref().unwrap()
        }

        fn restart(&mut self) {
            self.engine().flush().unwrap();
            self.state = None;
            self.open();
        }

        fn crash(&mut self) {
            let from = self.data_dir();
            self.lives += 1;
            copy_dir(&from, &self.data_dir());
            self.state = None;
            self.open();
        }
    }

    pub fn copy_dir(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_dir(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}
