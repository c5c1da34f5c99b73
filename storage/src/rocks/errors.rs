//! RocksDB's errors, which are text, by what the caller does next.

use std::path::{Path, PathBuf};

use rocksdb::ErrorKind;

use crate::Error;

pub(super) fn engine_error(error: rocksdb::Error) -> Error {
    let kind = error.kind();
    let message = error.into_string();
    match kind {
        ErrorKind::Corruption => Error::Corrupt { file: named_file(&message), reason: message },
        _ if is_full(&message) => Error::Full(message),
        _ => Error::Io(message),
    }
}

/// As [`engine_error`], for opening, where a lock that is held and a missing file have names too.
pub(super) fn open_error(state_dir: &Path, error: rocksdb::Error) -> Error {
    match engine_error(error) {
        Error::Io(message) if message.contains("/LOCK") => Error::Refused(format!(
            "{}: in use by another process ({message})",
            state_dir.display()
        )),
        // A file that the manifest names is gone.
        Error::Io(reason) if reason.contains("No such file") => {
            Error::Corrupt { file: named_file(&reason), reason }
        }
        error => error,
    }
}

fn is_full(message: &str) -> bool {
    ["No space left on device", "NoSpace", "Disk quota exceeded"]
        .into_iter()
        .any(|text| message.contains(text))
}

/// The file that a message speaks of, if it does.
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
        assert!(is_full("IO error: No space left on device: While appending to file: /x.sst"));
        assert!(!is_full("IO error: Input/output error: While appending to file: /x.sst"));
    }
}
