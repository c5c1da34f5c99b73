//! Files that keep transactions between runs: one for the current transaction, and `<file>.<name>`
//! beside it for each transaction with a name.
//!
//! A file begins with a line that names its format and its state. The transaction follows, as the
//! client encodes it. A write replaces the whole file and syncs it, so a run that dies leaves the
//! old content or the new. A run on a file holds a lock beside it, so of two runs at once one
//! waits. The file contains the writes of the transaction, so only its user may read it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rangedb_client::SuspendedTransaction;

use crate::failure::Failure;
use crate::state_directory;

/// First word of a session file.
const MAGIC: &str = "rangedb-session";

/// Version of the format. Raised when the meaning of what follows changes.
const FORMAT: u32 = 1;

/// Maximum length of the first line.
const HEAD_BYTES_MAX: usize = 64;

/// Maximum length of a file, far above the limits of a transaction. Nothing beyond it is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Maximum wait for another run on the same transaction: the usual timeout of its requests.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Interval between attempts to take the lock.
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Maximum length of a transaction's name. The name is a part of a file name, which may have 255
/// bytes.
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// The commit was begun, and may be done.
    Committing,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Committing => "committing",
        }
    }
}

/// Content of a session file.
pub struct Kept {
    pub state: State,
    pub transaction: SuspendedTransaction,
}

/// All session files of a directory.
pub struct Sessions {
    /// File of the current transaction.
    current: PathBuf,
}

impl Sessions {
    pub fn new(current: Option<PathBuf>) -> Result<Self, Failure> {
        let current = current.filter(|file| !file.as_os_str().is_empty());
        let no_place = |tried: String| {
            Failure::State(format!(
                "there is no place to keep a transaction ({tried}): RANGEDB_TXN_FILE can name one"
            ))
        };
        let current = match current {
            Some(current) => current,
            None => state_directory::file("transaction").map_err(no_place)?,
        };
        Ok(Sessions { current })
    }

    /// Returns the path of the transaction with this name. Without a name, the path of the current
    /// transaction.
    pub fn path(&self, name: Option<&str>) -> PathBuf {
        match name {
            None => self.current.clone(),
            Some(name) => self.current.with_added_extension(name),
        }
    }

    /// Finds the file of the transaction with this name or id. Without one, returns the current
    /// transaction's file.
    pub fn find(&self, id: Option<&str>) -> Result<PathBuf, Failure> {
        let Some(id) = id else { return Ok(self.current.clone()) };
        let named = self.path(Some(id));
        if named.exists() {
            return Ok(named);
        }
        let has_id =
            |path: &PathBuf| matches!(read(path), Ok(Some(kept)) if kept.transaction.id() == id);
        let found = self.all()?.into_iter().map(|(_, path)| path).find(has_id);
        let missing = || Failure::State(format!("no transaction {id} is open: see `txn list`"));
        found.ok_or_else(missing)
    }

    /// Returns the names and files of all transactions, the current one first.
    pub fn all(&self) -> Result<Vec<(Option<String>, PathBuf)>, Failure> {
        let mut all = Vec::new();
        if self.current.exists() {
            all.push((None, self.current.clone()));
        }
        let directory = directory_of(&self.current);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(all),
            entries => entries.map_err(|error| Failure::file(&directory, error))?,
        };
        let prefix = format!("{}.", file_name(&self.current).display());
        let mut named = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Failure::file(&directory, error))?;
            let file = entry.file_name();
            let name = file.to_str().and_then(|file| file.strip_prefix(&prefix));
            if let Some(Ok(name)) = name.map(parse_name) {
                named.push((Some(name), entry.path()));
            }
        }
        named.sort();
        all.extend(named);
        Ok(all)
    }
}

/// Checks that a transaction's name can be a part of a file name.
pub fn parse_name(name: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
        let rule = format!("1 to {NAME_BYTES_MAX} letters, digits, - or _");
        return Err(format!("a transaction's name is {rule}"));
    }
    Ok(name.to_owned())
}

pub fn none_open() -> Failure {
    Failure::State("no transaction is open: `txn begin` opens one".to_owned())
}

/// A session file, locked against other runs.
pub struct SessionFile {
    path: PathBuf,
    _lock: Lock,
}

impl SessionFile {
    /// Locks a session file. Waits while another run holds the lock.
    pub async fn lock(path: PathBuf) -> Result<Self, Failure> {
        let directory = directory_of(&path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|error| {
            let directory = directory.display();
            let message = format!(
                "there is no place to keep a transaction ({directory}: {error}): RANGEDB_TXN_FILE can \
                 name another"
            );
            Failure::State(message)
        })?;
        let beside = beside(&path, "lock");
        let began = Instant::now();
        loop {
            match Lock::take(&beside).map_err(|error| Failure::file(&beside, error))? {
                Some(lock) => return Ok(SessionFile { path, _lock: lock }),
                None if began.elapsed() > LOCK_WAIT => {
                    let path = path.display();
                    let message = format!("another command works on the transaction in {path}");
                    return Err(Failure::State(message));
                }
                None => tokio::time::sleep(LOCK_LOOK_EVERY).await,
            }
        }
    }

    /// Reads the file. None if it keeps no transaction.
    pub fn read(&self) -> Result<Option<Kept>, Failure> {
        read(&self.path)
    }

    pub fn write(&self, kept: &Kept) -> Result<(), Failure> {
        let new = beside(&self.path, "new");
        let written = write_new(&new, kept).and_then(|()| {
            fs::rename(&new, &self.path)?;
            // Without this sync, a crash of the machine could bring back the file that was
            // replaced.
            File::open(directory_of(&self.path))?.sync_all()
        });
        written.map_err(|error| Failure::file(&self.path, error))
    }

    pub fn remove(&self) -> Result<(), Failure> {
        fs::remove_file(&self.path).map_err(|error| Failure::file(&self.path, error))
    }
}

pub fn read(path: &Path) -> Result<Option<Kept>, Failure> {
    let mut bytes = Vec::new();
    let read = match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    read.map_err(|error| Failure::file(path, error))?;
    // The user created an empty file, as `mktemp` does.
    if bytes.is_empty() {
        return Ok(None);
    }
    decode(&bytes).map(Some).map_err(|why| {
        let path = path.display();
        Failure::State(format!("{path} cannot be read: {why}; without the file it is forgotten"))
    })
}

fn write_new(path: &Path, kept: &Kept) -> io::Result<()> {
    // A run that died may have left its file.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{MAGIC} {FORMAT} {}\n", kept.state.word()).as_bytes())?;
    file.write_all(&kept.transaction.to_bytes())?;
    file.sync_all()
}

fn decode(bytes: &[u8]) -> Result<Kept, String> {
    let no_session = || "it is no transaction's file".to_owned();
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let end = head.iter().position(|byte| *byte == b'\n').ok_or_else(no_session)?;
    let head = str::from_utf8(&head[..end]).map_err(|_| no_session())?;
    let mut words = head.split(' ');
    let (Some(MAGIC), Some(format), Some(state)) = (words.next(), words.next(), words.next())
    else {
        return Err(no_session());
    };
    if format != FORMAT.to_string() {
        return Err(format!("format {format} belongs to another version of rangedb"));
    }
    let states = [State::Open, State::Committing];
    let state = states.into_iter().find(|known| known.word() == state).ok_or_else(no_session)?;
    let transaction = SuspendedTransaction::from_bytes(&bytes[end + 1..]);
    Ok(Kept { state, transaction: transaction.map_err(|error| error.to_string())? })
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// Returns the path of a hidden file that belongs to this session file. No session file has such a
/// path, because names of transactions contain no dot.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file_name(path));
    name.push(format!(".{what}"));
    path.with_file_name(name)
}

/// Lock file of a session file. The lock is held until it is dropped, or until the process ends.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock. None if another run holds it.
    fn take(path: &Path) -> io::Result<Option<Lock>> {
        let options = OpenOptions::new().write(true).create(true).mode(0o600).to_owned();
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The last holder may have removed the file since it was opened here. A lock on a removed
        // file excludes nobody.
        let locked = file.metadata()?.ino();
        let is_there = fs::metadata(path).is_ok_and(|there| there.ino() == locked);
        Ok(is_there.then(|| Lock { file, path: path.to_owned() }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while the lock is still held. If the removal fails, an empty file stays.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
