//! Directory for the state of the command line between runs.
//!
//! It is the first of these that this user can have: `rangedb` below the user's state directory
//! (`$XDG_STATE_HOME`, by default `~/.local/state`), `rangedb` below `$XDG_RUNTIME_DIR`, and
//! `rangedb-UID` below the system's directory for temporary files. The last two are for users
//! without a home, such as those of services.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// Returns the path of a file in the directory, which exists then. Without one, returns the
/// directories that were tried, and why each cannot be had.
pub fn file(name: &str) -> Result<PathBuf, String> {
    let temporary = std::env::temp_dir();
    let user = geteuid().as_raw();
    let candidates = directories(|variable| std::env::var_os(variable), user, &temporary);
    let mut refused = Vec::new();
    for directory in candidates {
        match prepare(&directory, directory.starts_with(&temporary)) {
            Ok(()) => return Ok(directory.join(name)),
            Err(reason) => refused.push(format!("{}: {reason}", directory.display())),
        }
    }
    Err(refused.join("; "))
}

fn directories(
    variable: impl Fn(&str) -> Option<OsString>,
    user: u32,
    temporary: &Path,
) -> Vec<PathBuf> {
    // A relative path would mean another place after every `cd`. The XDG specification says to
    // ignore it.
    let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let in_home = || path("HOME").map(|home| home.join(Path::new(".local/state")));
    let below = path("XDG_STATE_HOME").or_else(in_home).into_iter().chain(path("XDG_RUNTIME_DIR"));
    let below = below.map(|directory| directory.join("rangedb"));
    below.chain([temporary.join(format!("rangedb-{user}"))]).collect()
}

/// Creates the directory if it does not exist. Where everybody may create one, refuses one that
/// somebody else could have made for this user. A link elsewhere is the user's own choice.
fn prepare(directory: &Path, is_everybodys: bool) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| error.to_string())?;
    let metadata = fs::symlink_metadata(directory).map_err(|error| error.to_string())?;
    let is_own = metadata.is_dir() && metadata.uid() == geteuid().as_raw();
    if is_everybodys && !is_own {
        return Err("it is not a directory of this user".to_owned());
    }
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_the_users_choice_or_below_home_or_where_any_user_may_write() {
        let found = |variables: &[(&str, &str)]| -> Vec<String> {
            let value = |name: &str| {
                let value = variables.iter().find(|(variable, _)| *variable == name);
                value.map(|(_, value)| OsString::from(value))
            };
            let found = directories(value, 7, Path::new("/t"));
            found.into_iter().map(|path| path.display().to_string()).collect()
        };
        let home = ("HOME", "/home/ada");
        let in_home = "/home/ada/.local/state/rangedb";
        assert_eq!(found(&[home]), [in_home, "/t/rangedb-7"]);
        assert_eq!(found(&[home, ("XDG_STATE_HOME", "/s")]), ["/s/rangedb", "/t/rangedb-7"]);
        assert_eq!(found(&[home, ("XDG_STATE_HOME", "s")]), [in_home, "/t/rangedb-7"]);
        assert_eq!(found(&[("XDG_RUNTIME_DIR", "/r")]), ["/r/rangedb", "/t/rangedb-7"]);
        assert_eq!(found(&[]), ["/t/rangedb-7"]);
    }

    #[test]
    fn a_directory_that_somebody_else_could_have_made_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        assert_eq!(prepare(&own, true), Ok(()));
        assert_eq!(prepare(&own, true), Ok(()), "it stays");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(prepare(&link, true).is_err(), "a link leads anywhere");
        assert_eq!(prepare(&link, false), Ok(()), "the user's own link");
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(prepare(&file, false).is_err());
    }
}
