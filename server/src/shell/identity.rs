//! Identity of this node: the data directory's lock and its IDENTITY file.
//!
//! The file holds what must survive a restart and cannot be in the state, because the state belongs
//! to a cluster only once this file says so:
//! - the directory's own id;
//! - the ballot that it promised and the formation that it accepted while a cluster was formed;
//! - the cluster and the node that it became;
//! - the last known addresses of other nodes.
//!
//! Every change is durable before the node acts on it. The node writes a new file, syncs it,
//! renames it into place and syncs the directory. The second line is a checksum of the first, so
//! that a flipped bit is refused instead of making this another node.
//!
//! The file is the first one written in a directory. The engines are opened next, and only then
//! does the file say that the directory belongs to a member. So two states are refused, and a crash
//! leaves neither:
//! - A directory with other files and without this one has lost it, or was never a node's.
//! - A member's directory without its engines has lost what the node promised.

mod record;

use std::fs::{File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rangedb_proto::v1::{Formation, NodeDescriptor};
use rangedb_storage::disk::{create_dir_durably, write_durably};
use serde::{Deserialize, Serialize};

use record::{Accepted, FormationRecord, NodeRecord};
pub use record::{Ballot, Membership};

/// Format version of the whole data directory. Every other is refused.
pub const FORMAT_VERSION: u32 = 2;

const IDENTITY_FILE: &str = "IDENTITY";
const LOCK_FILE: &str = "LOCK";

/// Files that a directory without an identity may hold: leftovers of an interrupted opening, and
/// files that a file system makes by itself.
const NOBODYS_FILES: [&str; 3] = [LOCK_FILE, "IDENTITY.unfinished", "lost+found"];

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("another process uses the data directory {}", .0.display())]
    InUse(PathBuf),
    #[error(
        "the data directory {} has format {found}, and this version of rangedb reads format \
         {FORMAT_VERSION} alone: use the version that wrote it", path.display()
    )]
    OtherFormat { path: PathBuf, found: u32 },
    #[error("corrupt data in {}: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "the data directory {} has no {IDENTITY_FILE} but holds {found}: put {IDENTITY_FILE} back if \
         this was a node's, or give an empty directory, which becomes a new node", path.display()
    )]
    Foreign { path: PathBuf, found: String },
    #[error(
        "the data directory {} is that of node {node_id}, but {missing} is gone, and with it what the \
         node promised to others: put it back, or empty the directory, which becomes a new node",
        path.display()
    )]
    Lost { path: PathBuf, node_id: u64, missing: &'static str },
    #[error("{verb} {}: {error}", path.display())]
    Io { verb: &'static str, path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Write(#[from] rangedb_storage::Error),
}

/// Contents of the IDENTITY file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Identity {
    format_version: u32,
    /// Random id, made once for each data directory. It tells a restarted node from a wiped one.
    pub directory_id: u64,
    membership: Option<Membership>,
    promised: Option<Ballot>,
    accepted: Option<Accepted>,
    /// Formation of the cluster. Members keep it so that they can tell other nodes.
    formation: Option<FormationRecord>,
    /// True once stores have run on this directory: its founding replicas may have made promises
    /// since.
    pub opened: bool,
    /// Time for which replicas of the last process refuse votes after they heard a leader, in
    /// microseconds. Leaders of that time may still rely on it.
    #[serde(default)]
    pub vote_embargo_us: u64,
    /// Number of processes that have opened the directory.
    #[serde(default)]
    pub starts: u64,
    nodes: Vec<NodeRecord>,
}

impl Identity {
    fn new(directory_id: u64) -> Self {
        Identity {
            format_version: FORMAT_VERSION,
            directory_id,
            membership: None,
            promised: None,
            accepted: None,
            formation: None,
            opened: false,
            vote_embargo_us: 0,
            starts: 0,
            nodes: Vec::new(),
        }
    }

    /// Returns cluster and node, once this directory is part of a cluster. They never change
    /// afterwards.
    pub fn membership(&self) -> Option<Membership> {
        self.membership
    }

    pub fn become_member(&mut self, membership: Membership, formation: Option<&Formation>) {
        assert!(
            self.membership.is_none_or(|before| before == membership),
            "a data directory never changes its cluster or node"
        );
        self.membership = Some(membership);
        self.formation = formation.map(FormationRecord::from);
    }

    pub fn formation(&self) -> Option<Formation> {
        self.formation.as_ref().map(Formation::from)
    }

    /// Returns the addresses of all nodes, as they were last stored.
    pub fn nodes(&self) -> Vec<NodeDescriptor> {
        self.nodes.iter().map(NodeDescriptor::from).collect()
    }

    pub fn set_nodes(&mut self, nodes: &[NodeDescriptor]) {
        self.nodes = nodes.iter().map(NodeRecord::from).collect();
    }

    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    pub fn accepted(&self) -> Option<(Ballot, Formation)> {
        self.accepted.as_ref().map(|accepted| (accepted.ballot, (&accepted.formation).into()))
    }

    pub fn set_promised(&mut self, ballot: Ballot) {
        self.promised = Some(ballot);
    }

    pub fn set_accepted(&mut self, ballot: Ballot, formation: &Formation) {
        self.accepted = Some(Accepted { ballot, formation: formation.into() });
    }
}

/// Data directory, locked for this process until the value is dropped.
pub struct DataDir {
    path: PathBuf,
    identity: Mutex<Identity>,
    _lock: File,
}

impl DataDir {
    /// Locks the directory and reads its identity. Creates both if they do not exist.
    ///
    /// # Errors
    /// Among others [`IdentityError::Foreign`]: the directory has no identity, but holds unknown
    /// files.
    pub fn open(path: &Path) -> Result<DataDir, IdentityError> {
        create_dir_durably(path)?;
        let file = path.join(IDENTITY_FILE);
        // Checked before this process makes any file there. The lock detects another process that
        // sets up the directory at the same time.
        if !is_there(&file)? {
            refuse_files(path)?;
        }
        let lock = lock(path)?;
        let identity = match std::fs::read(&file) {
            Ok(bytes) => decode(&file, &bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // 0 stands for "none" on the wire.
                let identity = Identity::new(fastrand::u64(1..));
                write_durably(&file, &encode(&identity))?;
                identity
            }
            Err(error) => return Err(io_failure("read", &file, error)),
        };
        // Only now is the directory known to be a node's.
        keep_private(path);
        Ok(DataDir { path: path.to_owned(), identity: Mutex::new(identity), _lock: lock })
    }

    /// True if the directory is that of a member of a cluster. Creates nothing.
    pub fn is_members(path: &Path) -> Result<bool, IdentityError> {
        let file = path.join(IDENTITY_FILE);
        if !is_there(&file)? {
            return Ok(false);
        }
        let bytes = std::fs::read(&file).map_err(|error| io_failure("read", &file, error))?;
        Ok(decode(&file, &bytes)?.membership().is_some())
    }

    /// Refuses a member's directory that lost its engines' files. To be called before the engines
    /// are opened, because opening them creates missing files.
    pub fn refuse_lost_engines(&self) -> Result<(), IdentityError> {
        let Some(Membership { node_id, .. }) = self.identity().membership() else { return Ok(()) };
        let lost = |missing| IdentityError::Lost { path: self.path.clone(), node_id, missing };
        if !is_there(&self.path.join("state/CURRENT"))? {
            return Err(lost("state/CURRENT"));
        }
        if !is_there(&self.path.join("log"))? {
            return Err(lost("log/"));
        }
        let log = names_in(&self.path.join("log"))?;
        let is_log = |name: &String| name.ends_with(".raftlog");
        if log.iter().any(is_log) { Ok(()) } else { Err(lost("log/*.raftlog")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// Changes the identity. The change is durable when this returns. Blocks.
    ///
    /// # Errors
    /// After an error nothing is changed in memory nor, as far as the operating system says, on
    /// disk.
    pub fn update<T>(&self, change: impl FnOnce(&mut Identity) -> T) -> Result<T, IdentityError> {
        let mut identity = self.identity.lock();
        let mut changed = identity.clone();
        let outcome = change(&mut changed);
        if changed != *identity {
            write_durably(&self.path.join(IDENTITY_FILE), &encode(&changed))?;
            *identity = changed;
        }
        Ok(outcome)
    }
}

/// True if there is a file or directory. One that may not be looked at is not taken to be gone.
fn is_there(path: &Path) -> Result<bool, IdentityError> {
    match path.metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_failure("look at", path, error)),
    }
}

/// Takes the permissions of others from the directory, if it is this process's own: it holds the data
/// of all users. A file system without permissions is its operator's choice.
fn keep_private(path: &Path) {
    let set = || {
        let metadata = path.metadata()?;
        let (mode, owner) = (metadata.mode(), metadata.uid());
        if mode & 0o077 == 0 || owner != rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        tracing::info!(path = %path.display(), "others can no longer look into the data directory");
        std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
    };
    let set: std::io::Result<()> = set();
    if let Err(error) = set {
        tracing::warn!(path = %path.display(), "others may look into the data directory: {error}");
    }
}

/// Returns the error of a file operation. If permission is missing, it says whose the file is.
fn io_failure(verb: &'static str, path: &Path, error: std::io::Error) -> IdentityError {
    let error = match error.kind() {
        ErrorKind::PermissionDenied => {
            std::io::Error::new(error.kind(), format!("{error}{}", whose(path)))
        }
        _ => error,
    };
    IdentityError::Io { verb, path: path.to_owned(), error }
}

/// Names the owner of the file, or of the innermost directory above it that can be looked at.
fn whose(path: &Path) -> String {
    let me = rustix::process::geteuid().as_raw();
    let found = path.ancestors().find_map(|path| Some((path, path.metadata().ok()?.uid())));
    match found {
        Some((path, owner)) if owner != me => format!(
            ": {} belongs to user {owner}, and this process is user {me}; change the owner, or start \
             the node as that user",
            path.display()
        ),
        Some((path, _)) => format!(": see the mode of {}", path.display()),
        None => String::new(),
    }
}

/// Refuses a directory that another program uses, or that lost its identity.
fn refuse_files(path: &Path) -> Result<(), IdentityError> {
    let mut names = names_in(path)?;
    names.retain(|name| !NOBODYS_FILES.contains(&name.as_str()));
    match names.into_iter().min() {
        Some(found) => Err(IdentityError::Foreign { path: path.to_owned(), found }),
        None => Ok(()),
    }
}

fn names_in(path: &Path) -> Result<Vec<String>, IdentityError> {
    let failed = |error| io_failure("read", path, error);
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<std::io::Result<_>>().map_err(failed)
}

fn lock(path: &Path) -> Result<File, IdentityError> {
    let file = path.join(LOCK_FILE);
    let opened = File::options().create(true).truncate(false).write(true).open(&file);
    let lock = opened.map_err(|error| io_failure("open", &file, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(IdentityError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_failure("lock", path, error)),
    }
}

fn encode(identity: &Identity) -> Vec<u8> {
    let json = serde_json::to_string(identity).expect("an identity is plain data");
    let crc32 = crc32fast::hash(json.as_bytes());
    format!("{json}\n{crc32:08x}\n").into_bytes()
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
    /// The one field that can be read in every newer format.
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let corrupt = |reason: String| IdentityError::Corrupt { path: path.to_owned(), reason };
    let text = std::str::from_utf8(bytes).map_err(|error| corrupt(error.to_string()))?;
    let (json, rest) = text.split_once('\n').ok_or_else(|| corrupt("it is cut short".into()))?;
    let crc32 = format!("{:08x}", crc32fast::hash(json.as_bytes()));
    if rest.trim_end() != crc32 {
        let reason = format!("its checksum is {crc32}, not '{}'", rest.trim_end().escape_default());
        return Err(corrupt(reason));
    }
    let version: Version = serde_json::from_str(json).map_err(|e| corrupt(e.to_string()))?;
    if version.format_version != FORMAT_VERSION {
        let path = path.parent().unwrap_or(path).to_owned();
        return Err(IdentityError::OtherFormat { path, found: version.format_version });
    }
    serde_json::from_str(json).map_err(|error| corrupt(error.to_string()))
}

#[cfg(test)]
mod tests;
