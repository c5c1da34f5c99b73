//! Tells damage of the log's files from a tail that a crash tore.
//!
//! At opening raft-engine cuts its newest file behind the first batch that does not check out,
//! whatever comes after, checks entries only where they stand last in a file, and forgets all files
//! below a missing one. Any of these may drop entries that this node has acknowledged. So every byte
//! is checked before raft-engine opens the directory, by a stricter rule that follows from how
//! appends are made: each is synced before the next begins, so
//! - in the newest append file at most the last batch may be broken; if a sound batch follows a
//!   broken one, the broken one had been synced once, and is damage;
//! - in every other append file every batch is sound.
//!
//! Files of rewritten batches are synced when the purge that writes them ends, so while the purge
//! marker is there, any of the newest of them may be broken (raft-engine cuts them there: the
//! entries are still in the append files); without it, none. The same holds for a gap between file
//! numbers.
//!
//! What can be read is not for that reason on the disk: a process may have been killed between the
//! write and the sync of its last batch, and after a sync that failed the page cache holds, as if
//! they were written, pages that the disk never took. The node takes what it finds for persisted and
//! acknowledges it, so before anything is looked at, the files that were written to last are synced
//! and the cache is asked to forget them ([`settle`]): what is read then is what the disk has.
//!
//! A file is begun with a header that is durable before anything is written behind it, so a file of
//! which more is there than a header, and no header, is damaged, the newest too. raft-engine would
//! begin such a file anew in its oldest format, whose batches are not signed, and which is refused
//! here as soon as the file is not the newest any more. Two crashes leave files that were not begun:
//! - On a full disk the next file is made and its header finds no room; raft-engine then goes on in
//!   the file before, which it would take for damaged at opening, because that has space allocated
//!   behind its batches and is not the newest. So a newest file that was not begun is removed.
//! - A power loss in the first seconds leaves the first file with a name and no header. It stays, for
//!   it says that there is a log, and is given its header.
//!
//! One thing cannot be seen here: damage to the very last batch looks like a torn tail. The log is
//! then shorter than the hard state's commit or the applied index say, which `raftstore` checks.
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
/// None and LZ4.
const COMPRESSIONS: [u8; 2] = [0, 1];
const APPEND_SUFFIX: &str = ".raftlog";
const REWRITE_SUFFIX: &str = ".rewrite";

/// Makes what the files hold durable, and sees to those that were not begun. Nobody else may have
/// the directory open.
pub(super) fn settle(dir: &Path) -> Result<()> {
    for suffix in [APPEND_SUFFIX, REWRITE_SUFFIX] {
        let files = numbered_files(dir, suffix)?;
        // All others were synced when they were closed. The newest may be one that was not begun:
        // then the one before it was written to last.
        for (_, path) in files.iter().rev().take(2) {
            let file = sync(path)?;
            // As well as it can: a file system need not listen, and has nothing to forget if it keeps
            // no pages.
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

/// Makes the newest file of each kind durable: opening the log writes to them, and does not sync.
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

/// Fails unless what is not sound may be cut. The files must be settled.
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

    /// True if its header was written whole, or anything stands behind it.
    fn is_begun(&self) -> bool {
        self.has_header() || self.bytes.len() > FILE_HEADER_BYTES
    }

    /// Where the first thing behind the header begins that is not sound.
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

    /// Looks at every place: the length of a broken batch cannot be trusted.
    fn sound_batch_behind(&self, broken: usize) -> bool {
        (broken + 1..self.bytes.len()).any(|at| self.batch_end(at).is_some())
    }

    /// Where the batch at this place ends, if there is a sound one.
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
