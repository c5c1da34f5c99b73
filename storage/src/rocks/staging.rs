//! Staging of a received snapshot's records, as sorted files beside the database.
//!
//! Records are collected until a file is full and then written at once, synced. A staged snapshot
//! is named by its directory. Opening the state first finishes an interrupted install, which may
//! need a staged snapshot, and then deletes all of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rocksdb::SstFileWriter;

use super::errors::file_error;
use super::{Engine, delete_end, poisoned};
use crate::disk::{create_dir_durably, io_error, sync_dir};
use crate::{ColumnFamily, Error, Result, Span, StagedSnapshot, Staging};

/// Files of one family in a staged snapshot's directory.
#[derive(Clone, Default)]
pub(super) struct StagedFamily {
    /// Number of files, in key order.
    pub files: u32,
    /// First and last key; `None` without records.
    pub ends: Option<(Bytes, Bytes)>,
}

/// Files of each family, by the family's number.
pub(super) type StagedFiles = [StagedFamily; ColumnFamily::ALL.len()];

#[derive(Default)]
struct Gathered {
    records: Vec<(Bytes, Bytes)>,
    bytes: usize,
}

pub(super) struct RocksStaging {
    engine: Arc<Engine>,
    id: u64,
    gathered: [Gathered; ColumnFamily::ALL.len()],
    staged: StagedFiles,
    records: u64,
    finished: bool,
}

impl RocksStaging {
    pub(super) fn begin(engine: &Arc<Engine>) -> Result<Self> {
        let engine = Arc::clone(engine);
        let id = engine.next_staged_id.fetch_add(1, Ordering::Relaxed);
        create_dir_durably(&engine.staged_dir(id))?;
        Ok(Self {
            engine,
            id,
            gathered: Default::default(),
            staged: Default::default(),
            records: 0,
            finished: false,
        })
    }

    fn write_file(&mut self, cf: ColumnFamily) -> Result<()> {
        let Gathered { records, .. } = std::mem::take(&mut self.gathered[cf as usize]);
        if records.is_empty() {
            return Ok(());
        }
        let family = &mut self.staged[cf as usize];
        let path = self.engine.staged_file(self.id, cf, family.files);
        family.files += 1;
        self.engine.write_sorted_file(cf, path, |file| {
            records.iter().try_for_each(|(key, value)| file.put(key, value))
        })
    }
}

impl Staging for RocksStaging {
    fn add(&mut self, cf: ColumnFamily, records: &[(Bytes, Bytes)]) -> Result<()> {
        for (key, value) in records {
            match &mut self.staged[cf as usize].ends {
                Some((_, last)) => {
                    assert!(*last < *key, "staged {key:?} does not come after {last:?}");
                    *last = key.clone();
                }
                ends => *ends = Some((key.clone(), key.clone())),
            }
            self.records += 1;
            let gathered = &mut self.gathered[cf as usize];
            gathered.bytes += key.len() + value.len();
            gathered.records.push((key.clone(), value.clone()));
            if gathered.bytes >= self.engine.options.staged_file_bytes {
                self.write_file(cf)?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<StagedSnapshot> {
        for cf in ColumnFamily::ALL {
            self.write_file(cf)?;
        }
        sync_dir(&self.engine.staged_dir(self.id))?;
        let staged = std::mem::take(&mut self.staged);
        self.engine.staged.lock().map_err(poisoned)?.insert(self.id, staged);
        self.finished = true;
        Ok(StagedSnapshot { id: self.id, records: self.records })
    }
}

impl Drop for RocksStaging {
    fn drop(&mut self) {
        if !self.finished {
            // Remaining files do no harm, and the next start deletes them.
            let _ = self.engine.remove_staged_dir(self.id);
        }
    }
}

impl Engine {
    pub(super) fn staged_dir(&self, id: u64) -> PathBuf {
        self.staging_dir.join(id.to_string())
    }

    pub(super) fn staged_file(&self, id: u64, cf: ColumnFamily, number: u32) -> PathBuf {
        self.staged_dir(id).join(format!("{}-{number}.sst", cf.name()))
    }

    /// Path of a file that empties the span in the family, if it is ingested before the staged
    /// files.
    pub(super) fn clearing_file(&self, id: u64, cf: ColumnFamily) -> PathBuf {
        self.staged_dir(id).join(format!("{}-clear.sst", cf.name()))
    }

    pub(super) fn write_clearing_file(&self, id: u64, cf: ColumnFamily, span: &Span) -> Result<()> {
        self.write_sorted_file(cf, self.clearing_file(id, cf), |file| {
            file.delete_range(&span.start[..], delete_end(span))
        })
    }

    fn write_sorted_file(
        &self,
        cf: ColumnFamily,
        path: PathBuf,
        fill: impl FnOnce(&mut SstFileWriter<'_>) -> std::result::Result<(), rocksdb::Error>,
    ) -> Result<()> {
        let options = &self.family_options[cf as usize];
        let mut file = SstFileWriter::create(options);
        file.open(&path).map_err(file_error)?;
        fill(&mut file).map_err(file_error)?;
        // Syncs the file.
        file.finish().map_err(file_error)
    }

    /// Removes the snapshot from the list of those that may be installed.
    pub(super) fn forget_staged(&self, id: u64) -> Option<StagedFiles> {
        self.staged.lock().ok()?.remove(&id)
    }

    pub(super) fn remove_staged_dir(&self, id: u64) -> Result<()> {
        let dir = self.staged_dir(id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove", &dir, &error))
            }
            _ => Ok(()),
        }
    }

    /// Deletes everything that is staged. No install may be in progress.
    pub(super) fn empty_staging(&self) -> Result<()> {
        let dir = &self.staging_dir;
        let failed = |error: std::io::Error| io_error("read", dir, &error);
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.map_err(|error| io_error("remove", &path, &error))?;
        }
        Ok(())
    }

    pub(super) fn check_staged(&self, staged: &StagedSnapshot) -> Result<()> {
        let known = self.staged.lock().map_err(poisoned)?.contains_key(&staged.id);
        if known {
            Ok(())
        } else {
            Err(Error::Refused(format!("no staged snapshot {}", staged.id)))
        }
    }
}
