//! Classification of RocksDB's errors, which are text, by what the caller does next.

use std::path::{Path, PathBuf};

use rocksdb::ErrorKind;

use crate::Error;

pub(super) fn engine_error(error: rocksdb::Error) -> Error {
    database_error(error.kind(), error.into_string())
}

/// Classifies like [`engine_error`], for a sorted file that is written beside the database.
pub(super) fn file_error(error: rocksdb::Error) -> Error {
    sorted_file_error(error.kind(), error.into_string())
}

/// Classifies an error of the database. An exhausted quota is no full disk here: the database does
/// not recover from it by itself and answers every later write with it. So the process ends; a
/// start with room replays the log.
fn database_error(kind: ErrorKind, message: String) -> Error {
    match kind {
        ErrorKind::Corruption => Error::Corrupt { file: named_file(&message), reason: message },
        _ if is_full(&message) => Error::Full(message),
        _ => Error::Io(message),
    }
}

/// Classifies an error of a sorted file. It can be written again once there is room, so an
/// exhausted quota is a full disk here.
fn sorted_file_error(kind: ErrorKind, message: String) -> Error {
    match database_error(kind, message) {
        Error::Io(message) if message.contains("Disk quota exceeded") => Error::Full(message),
        error => error,
    }
}

/// Classifies like [`engine_error`], for opening: a held lock and a missing file have errors of
/// their own. A lock file that may not be opened is not held.
pub(super) fn open_error(state_dir: &Path, error: rocksdb::Error) -> Error {
    match engine_error(error) {
        Error::Io(message) if message.contains("Permission denied") => Error::Io(message),
        Error::Io(message) if message.contains("/LOCK") => Error::Refused(format!(
            "{}: in use by another process ({message})",
            state_dir.display()
        )),
        // A file that the manifest names is missing.
        Error::Io(reason) if reason.contains("No such file") => {
            Error::Corrupt { file: named_file(&reason), reason }
        }
        error => error,
    }
}

fn is_full(message: &str) -> bool {
    ["No space left on device", "NoSpace"].into_iter().any(|text| message.contains(text))
}

/// Returns the file that a message names, if it names one.
fn named_file(message: &str) -> Option<PathBuf> {
    let words = message.split_whitespace();
    let mut words = words.map(|word| word.trim_end_matches([':', ',', '.', ';', ')']));
    let is_file = |word: &&str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        name.ends_with(".sst") || name.starts_with("MANIFEST-") || name == "CURRENT"
    };
    words.find(is_file).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_damaged_file_is_found_in_rocksdbs_message() {
        for (message, file) in [
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  \
                 in /data/state/000012.sst offset 0 size 4096",
                Some("/data/state/000012.sst"),
            ),
            (
                "Corruption: Sst file size mismatch: /data/state/000009.sst. Size recorded 1",
                Some("/data/state/000009.sst"),
            ),
            ("IO error: /data/state/MANIFEST-000004: no", Some("/data/state/MANIFEST-000004")),
            ("Corruption: who knows", None),
        ] {
            assert_eq!(named_file(message), file.map(PathBuf::from));
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = "IO error: No space left on device: While appending to file: /x.sst";
        let quota = "IO error: Disk quota exceeded: While appending to file: /x.sst";
        let broken = "IO error: Input/output error: While appending to file: /x.sst";
        for (message, in_database, in_file) in
            [(full, true, true), (quota, false, true), (broken, false, false)]
        {
            let of_database = database_error(ErrorKind::IOError, message.into());
            let of_file = sorted_file_error(ErrorKind::IOError, message.into());
            for (error, full) in [(of_database, in_database), (of_file, in_file)] {
                match error {
                    Error::Full(said) => assert!(full && said == message),
                    Error::Io(said) => assert!(!full && said == message),
                    error => panic!("{message}: {error:?}"),
                }
            }
        }
    }
}
