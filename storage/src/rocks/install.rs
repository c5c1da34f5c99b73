//! Atomic replacement of a span by a staged snapshot, also through a crash.
//!
//! RocksDB ingests sorted files atomically and durably, but one family after the other, and the
//! meta batch goes through the memtable. A crash in between would leave a mixture. So an install
//! has these steps:
//!
//! 1. flush: earlier writes must not be lost once the install is there;
//! 2. write down the following steps, and sync them (the *redo record*);
//! 3. for each family, ingest a file that deletes the span, then the staged files; write the meta
//!    batch. Readers are kept out meanwhile, so that they see all of it or nothing;
//! 4. flush: the meta batch is durable;
//! 5. remove the redo record, then the staged files.
//!
//! A crash before the end of step 2 leaves the state as it was. After it, opening repeats steps 3
//! to 5 from the start. The result does not depend on how much of them was done before: the file
//! that deletes the span hides files ingested the first time. Files are ingested through hard
//! links, so that they are still there to be ingested again.
//!
//! Concurrent writes must not touch the span. A crash may lose them and keep the install: they
//! count as later than the install.

use std::path::PathBuf;

use bytes::Bytes;
use rocksdb::IngestExternalFileOptions;

use super::errors::engine_error;
use super::{Engine, poisoned};
use crate::disk::{io_error, remove_durably, sync_dir, write_durably};
use crate::{ColumnFamily, Direction, Error, Install, Result, Span, Write, WriteBatch, varint};

const REDO_RECORD: &str = "install";
const REDO_FORMAT: u8 = 1;
const CRC_BYTES: usize = 4;

/// Progress of an install; the points at which tests let it crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Flushed,
    Recorded,
    /// The files of this family are ingested.
    Ingested(ColumnFamily),
    MetaWritten,
    MetaFlushed,
    RecordRemoved,
}

/// Redo record: all that it takes to install.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Redo {
    staged_id: u64,
    families: Vec<RedoFamily>,
    meta: WriteBatch,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct RedoFamily {
    cf: ColumnFamily,
    /// True if there is a file that empties the span.
    clears: bool,
    /// Number of staged files.
    files: u32,
}

impl Engine {
    pub(super) fn install(
        &self,
        install: Install,
        reached: &mut dyn FnMut(Step) -> Result<()>,
    ) -> Result<()> {
        let Install { staged, span, meta } = install;
        let _installing = self.installing.lock().map_err(poisoned)?;
        self.check_staged(&staged)?;
        let path = self.redo_path();
        assert!(!path.exists(), "{} is of an install that failed before", path.display());
        self.flush()?;
        reached(Step::Flushed)?;
        let files = self.staged.lock().map_err(poisoned)?[&staged.id].clone();
        let mut redo = Redo { staged_id: staged.id, families: Vec::new(), meta };
        for cf in ColumnFamily::DATA {
            let family = &files[cf as usize];
            for key in family.ends.iter().flat_map(|(first, last)| [first, last]) {
                assert!(span.contains(key), "staged {key:?} is outside of the span");
            }
            let clears = self.holds_records(cf, &span)?;
            if clears {
                self.write_clearing_file(staged.id, cf, &span)?;
            }
            if clears || family.files > 0 {
                redo.families.push(RedoFamily { cf, clears, files: family.files });
            }
        }
        let meta_files = files[ColumnFamily::Meta as usize].files;
        assert_eq!(meta_files, 0, "a snapshot holds records of the data families alone");
        sync_dir(&self.staged_dir(staged.id))?;
        write_durably(&self.redo_path(), &redo.encode())?;
        reached(Step::Recorded)?;
        self.filters.collector.forget(&span);
        self.redo(&redo, reached).map_err(cut_off)?;
        self.forget_staged(staged.id);
        self.remove_staged_dir(staged.id)
    }

    /// Repeats, at opening, an install that a crash may have interrupted.
    pub(super) fn finish_install(&self) -> Result<()> {
        let path = self.redo_path();
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("read", &path, &error)),
            Ok(bytes) => {
                let reason = "the record of an unfinished install does not check out";
                let redo = Redo::decode(&bytes);
                let redo =
                    redo.ok_or(Error::Corrupt { file: Some(path), reason: reason.into() })?;
                self.redo(&redo, &mut |_| Ok(()))
            }
        }
    }

    fn redo(&self, redo: &Redo, reached: &mut dyn FnMut(Step) -> Result<()>) -> Result<()> {
        {
            let _view = self.view.write().map_err(poisoned)?;
            for family in &redo.families {
                self.ingest(redo.staged_id, family)?;
                reached(Step::Ingested(family.cf))?;
            }
            self.write(redo.meta.clone())?;
            reached(Step::MetaWritten)?;
        }
        self.flush()?;
        reached(Step::MetaFlushed)?;
        remove_durably(&self.redo_path())?;
        reached(Step::RecordRemoved)
    }

    fn ingest(&self, id: u64, family: &RedoFamily) -> Result<()> {
        let cf = family.cf;
        let clearing = family.clears.then(|| self.clearing_file(id, cf));
        let staged = (0..family.files).map(|number| self.staged_file(id, cf, number));
        // Of overlapping files, a later one in this list counts as newer.
        let links: Vec<PathBuf> =
            clearing.into_iter().chain(staged).map(link_again).collect::<Result<_>>()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.family(cf);
        self.db.ingest_external_file_cf_opts(family, &options, links).map_err(engine_error)
    }

    fn holds_records(&self, cf: ColumnFamily, span: &Span) -> Result<bool> {
        let options = rocksdb::ReadOptions::default();
        let mut records = self.records(cf, &span.start, &span.end, Direction::Forward, options);
        Ok(crate::Records::next(&mut records)?.is_some())
    }

    fn redo_path(&self) -> PathBuf {
        self.staging_dir.join(REDO_RECORD)
    }
}

/// Turns a full disk into an error that ends the process. An install with a redo record can be
/// neither given up nor repeated by the caller: the visible state is a mixture until the next start
/// has finished the install.
fn cut_off(error: Error) -> Error {
    match error {
        Error::Full(reason) => Error::Io(format!("an install was cut off: {reason}")),
        error => error,
    }
}

/// Creates another name for the file, which RocksDB will remove.
fn link_again(path: PathBuf) -> Result<PathBuf> {
    let link = path.with_extension("link.sst");
    let failed = |error: std::io::Error| io_error("link", &path, &error);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::hard_link(&path, &link).map_err(failed)?;
    Ok(link)
}

impl Redo {
    /// Encodes the redo record. Numbers are varints.
    ///
    /// ```text
    /// 01  staged id  families  family...  writes  write...  crc32:4 LE
    /// family  cf:1  clears:1  files
    /// write   kind:1  cf:1  bytes  [bytes]      0 put (key, value), 1 delete (key),
    ///                                           2 delete span (start, end)
    /// bytes   length  the bytes
    /// ```
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![REDO_FORMAT];
        varint::put(&mut out, self.staged_id);
        varint::put(&mut out, self.families.len() as u64);
        for family in &self.families {
            out.extend([family.cf as u8, u8::from(family.clears)]);
            varint::put(&mut out, u64::from(family.files));
        }
        varint::put(&mut out, self.meta.writes.len() as u64);
        for write in &self.meta.writes {
            let (kind, cf, fields) = match write {
                Write::Put { cf, key, value } => (0, *cf, vec![key, value]),
                Write::Delete { cf, key } => (1, *cf, vec![key]),
                Write::DeleteSpan { cf, span } => (2, *cf, vec![&span.start, &span.end]),
            };
            out.extend([kind, cf as u8]);
            for field in fields {
                varint::put(&mut out, field.len() as u64);
                out.extend_from_slice(field);
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Decodes the redo record. `None` if [`Redo::encode`] did not make these bytes.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        if crc32fast::hash(bytes) != u32::from_le_bytes(*crc) {
            return None;
        }
        let rest = &mut &bytes[..];
        if take_byte(rest)? != REDO_FORMAT {
            return None;
        }
        let staged_id = varint::take(rest)?;
        let mut families = Vec::new();
        for _ in 0..varint::take(rest)? {
            let cf = take_family(rest)?;
            let clears = match take_byte(rest)? {
                0 => false,
                1 => true,
                _ => return None,
            };
            families.push(RedoFamily { cf, clears, files: varint::take(rest)?.try_into().ok()? });
        }
        let mut meta = WriteBatch::default();
        for _ in 0..varint::take(rest)? {
            let kind = take_byte(rest)?;
            let cf = take_family(rest)?;
            match kind {
                0 => meta.put(cf, take_bytes(rest)?, take_bytes(rest)?),
                1 => meta.delete(cf, take_bytes(rest)?),
                2 => {
                    let (start, end) = (take_bytes(rest)?, take_bytes(rest)?);
                    meta.delete_span(cf, Span { start, end });
                }
                _ => return None,
            }
        }
        rest.is_empty().then_some(Self { staged_id, families, meta })
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, behind) = rest.split_first()?;
    *rest = behind;
    Some(*byte)
}

fn take_family(rest: &mut &[u8]) -> Option<ColumnFamily> {
    ColumnFamily::from_number(u32::from(take_byte(rest)?))
}

fn take_bytes(rest: &mut &[u8]) -> Option<Bytes> {
    let length = varint::take(rest)?.try_into().ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
