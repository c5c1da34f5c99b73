//! Integrity check of the log's files, which distinguishes damage from a tail that a crash tore.
//!
//! Each of these habits of raft-engine may drop entries that this node has acknowledged:
//! - at opening it cuts its newest file behind the first batch that is not sound, whatever follows;
//! - it checks entries only where they are the last in a file;
//! - it forgets all files below a missing one.
//!
//! So every byte is checked before raft-engine opens the directory, by a stricter rule. Each append
//! is synced before the next begins, so:
//! - in the newest append file at most the last batch may be broken. A broken batch before a sound
//!   one had been synced, so it is damage;
//! - in every other append file every batch is sound.
//!
//! Files of rewritten batches are synced when the purge that writes them ends. So while the purge
//! marker exists, any batch in the newest of these files may be broken: raft-engine cuts the file
//! there, and the entries are still in the append files. Without the marker, none may be. The same
//! holds for a gap between file numbers.
//!
//! Readable bytes need not be on the disk. A process may have been killed between the write and the
//! sync of its last batch. After a failed sync the page cache holds pages as if they were written,
//! although the disk never took them. The node takes what it reads for persisted and acknowledges
//! it. So before any check, [`settle`] syncs the files written last and asks the page cache to
//! forget them: later reads then show what the disk has.
//!
//! A file's header is durable before anything is written behind it. So a file that is longer than a
//! header and has none is damaged, even the newest. raft-engine would begin such a file anew in its
//! oldest format, whose batches are not signed. This check refuses that format once the file is no
//! longer the newest. Two crashes leave files without a header:
//! - On a full disk the next file is created, and its header finds no room. raft-engine then goes
//!   on in the file before. At opening, raft-engine would take that file for damaged, because the
//!   file has space allocated behind its batches and is not the newest. So a newest file without a
//!   header is removed.
//! - A power loss in the first seconds leaves the first file with a name and no header. The file
//!   stays, because it shows that there is a log, and gets its header.
//!
//! One kind of damage is not detected here: damage to the very last batch looks like a torn tail.
//! The log is then shorter than the hard state's commit or the applied index says, which
//! `raftstore` checks.
//!
//! ```text
//! file    magic:53  version:8 = 2  alignment:8 = 0  batches  zeros (space allocated ahead)
//! batch   length:7  compression:1  footer offset:8  entries  footer
//! entries bytes  crc32:4 LE, or nothing
//! footer  items  crc32:4 LE, xor the file's number
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::{io_error, remove_durably, write_durably};
use crate::{Error, Result};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Version 2, no alignment.
const VERSION: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
const FILE_HEADER_BYTES: usize = MAGIC.len() + VERSION.len();
const BATCH_HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// Compression types: none and LZ4.
const COMPRESSIONS: [u8; 2] = [0, 1];
const APPEND_SUFFIX: &str = ".raftlog";
const REWRITE_SUFFIX: &str = ".rewrite";

/// Makes the contents of the files durable, and removes or completes files without a header. No
/// other process may have the directory open.
pub(super) fn settle(dir: &Path) -> Result<()> {
    for suffix in [APPEND_SUFFIX, REWRITE_SUFFIX] {
        let files = numbered_files(dir, suffix)?;
        // All others were synced when they were closed. The newest may have no header: then the one
        // before it was written to last.
        for (_, path) in files.iter().rev().take(2) {
            let file = sync(path)?;
            // Best effort: a file system may ignore the advice, or keep no pages to forget.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        match &files[..] {
            [.., (number, path)] if !CheckedFile::read(*number, path)?.is_begun() => {
                if files.len() > 1 {
                    remove_durably(path)?;
                } else {
                    write_durably(path, &[MAGIC, &VERSION].concat())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the newest file of each kind durable: opening the log writes to these files and does not
/// sync.
pub(super) fn sync_newest(dir: &Path) -> Result<()> {
    for suffix in [APPEND_SUFFIX, REWRITE_SUFFIX] {
        if let Some((_, path)) = numbered_files(dir, suffix)?.last() {
            sync(path)?;
        }
    }
    Ok(())
}

fn sync(path: &Path) -> Result<File> {
    let synced = File::open(path).and_then(|file| file.sync_all().map(|()| file));
    synced.map_err(|error| io_error("sync", path, &error))
}

/// Fails unless everything that is not sound may be cut. [`settle`] must have run before.
pub(super) fn check_files(dir: &Path, purging: bool) -> Result<()> {
    let append = numbered_files(dir, APPEND_SUFFIX)?;
    check_numbers(&append, purging)?;
    for (place, (number, path)) in append.iter().enumerate() {
        let newest = place + 1 == append.len();
        let file = CheckedFile::read(*number, path)?;
        if !file.has_header() {
            return Err(damage(path, 0));
        }
        match file.first_broken() {
            Some(broken) if !newest || file.sound_batch_behind(broken) => {
                return Err(damage(path, broken));
            }
            _ => {}
        }
    }
    let rewrite = numbered_files(dir, REWRITE_SUFFIX)?;
    check_numbers(&rewrite, purging)?;
    for (place, (number, path)) in rewrite.iter().enumerate() {
        let newest = place + 1 == rewrite.len();
        let file = CheckedFile::read(*number, path)?;
        if !file.has_header() {
            return Err(damage(path, 0));
        }
        match file.first_broken() {
            Some(broken) if !(newest && purging) => return Err(damage(path, broken)),
            _ => {}
        }
    }
    Ok(())
}

fn damage(path: &Path, offset: usize) -> Error {
    let reason = format!("a raft log record at offset {offset} does not check out");
    Error::Corrupt { file: Some(path.into()), reason }
}

fn numbered_files(dir: &Path, suffix: &str) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |error: std::io::Error| io_error("read", dir, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(suffix)?.parse().ok());
        files.extend(number.map(|number: u64| (number, path)));
    }
    files.sort();
    Ok(files)
}

fn check_numbers(files: &[(u64, PathBuf)], purging: bool) -> Result<()> {
    for pair in files.windows(2) {
        let ((below, _), (above, path)) = (&pair[0], &pair[1]);
        if below + 1 != *above && !purging {
            let reason = format!("the raft log files between {below} and {above} are missing");
            return Err(Error::Corrupt { file: Some(path.clone()), reason });
        }
    }
    Ok(())
}

struct CheckedFile {
    bytes: Vec<u8>,
    number: u64,
}

impl CheckedFile {
    fn read(number: u64, path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| io_error("read", path, &error))?;
        Ok(Self { bytes, number })
    }

    fn has_header(&self) -> bool {
        let header = self.bytes.get(..FILE_HEADER_BYTES);
        header.is_some_and(|header| header.starts_with(MAGIC) && header.ends_with(&VERSION))
    }

    /// True if the file's header was written whole, or anything stands behind it.
    fn is_begun(&self) -> bool {
        self.has_header() || self.bytes.len() > FILE_HEADER_BYTES
    }

    /// Offset of the first batch that is not sound. Zeros at the end are space allocated ahead.
    fn first_broken(&self) -> Option<usize> {
        let mut at = FILE_HEADER_BYTES;
        while at < self.bytes.len() {
            match self.batch_end(at) {
                Some(end) => at = end,
                None if self.bytes[at..].iter().all(|byte| *byte == 0) => return None,
                None => return Some(at),
            }
        }
        None
    }

    /// True if a sound batch begins behind `broken`. Tries every offset: the length of a broken
    /// batch cannot be trusted.
    fn sound_batch_behind(&self, broken: usize) -> bool {
        (broken + 1..self.bytes.len()).any(|at| self.batch_end(at).is_some())
    }

    /// Returns the end of the batch at this offset, if the batch is sound.
    fn batch_end(&self, at: usize) -> Option<usize> {
        let rest = &self.bytes[at..];
        let header = rest.get(..BATCH_HEADER_BYTES)?;
        let (length, offset) = header.split_at(BATCH_HEADER_BYTES / 2);
        let length = u64::from_be_bytes(length.try_into().ok()?);
        let offset = u64::from_be_bytes(offset.try_into().ok()?) as usize;
        if !COMPRESSIONS.contains(&(length as u8)) {
            return None;
        }
        let length = (length >> 8) as usize;
        if offset < BATCH_HEADER_BYTES || offset > length {
            return None;
        }
        let batch = rest.get(..length)?;
        let entries = &batch[BATCH_HEADER_BYTES..offset];
        let sound = is_sound(&batch[offset..], self.number as u32)
            && (entries.is_empty() || is_sound(entries, 0));
        sound.then_some(at + length)
    }
}

/// True if the bytes end in their checksum, xor the signature.
fn is_sound(bytes: &[u8], signature: u32) -> bool {
    let Some((bytes, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else { return false };
    !bytes.is_empty() && crc32fast::hash(bytes) == u32::from_le_bytes(*crc) ^ signature
}
