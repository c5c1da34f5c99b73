//! Durable file operations: the files are there, whole, after a power loss.
//!
//! A file's bytes are durable once the file is synced; its name is durable once its directory is.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::{Error, Result};

/// Makes durable that names were created in or removed from the directory.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io_error("sync", dir, &error))
}

/// Replaces or creates the file. A crash leaves the old file or the new one, and the new one for
/// sure once this has returned.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().expect("a file has a directory");
    let unfinished = path.with_added_extension("unfinished");
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| io_error("write", &unfinished, &error))?;
    std::fs::rename(&unfinished, path).map_err(|error| io_error("replace", path, &error))?;
    sync_dir(dir)
}

/// Removes the file durably, if it exists.
pub fn remove_durably(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path, &error)),
        Ok(()) => sync_dir(path.parent().expect("a file has a directory")),
    }
}

/// Creates the directory and its parents durably, if they do not exist.
pub fn create_dir_durably(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_durably(parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("create", dir, &error)),
        Ok(()) => {}
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

pub(crate) fn io_error(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{verb} {}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full(message),
        _ => Error::Io(message),
    }
}
